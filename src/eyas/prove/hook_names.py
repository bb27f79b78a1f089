"""Which names look like hooks of a training, ours or those of other libraries, and what does the same here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from eyas.callbacks.base import ADJUSTERS, EVENTS
from eyas.names import nearest

TYPING_MISTAKE = 0.9  # of ``difflib``: two or three letters in a name of twenty
RESEMBLANCE = 0.75  # of ``difflib``: a word more, such as on_epoch_end for on_fit_epoch_end

TRAINER_METHODS = (
    "get_dataset",
    "get_model",
    "set_model_attributes",
    "get_dataloader",
    "build_dataset",
    "auto_batch",
    "build_optimizer",
    "get_validator",
    "resume_training",
    "train_epoch",
    "train_batch",
    "preprocess_batch",
    "optimizer_step",
    "validate",
    "save_model",
    "save_metrics",
    "label_loss_items",
    "progress_string",
    "plot_training_labels",
    "plot_training_samples",
    "plot_metrics",
    "final_eval",
)
LOSS_METHODS = ("box_loss", "class_loss", "distance_loss", "branch_losses", "layer_losses", "supervised")
HOMES: Mapping[str, str] = {
    **dict.fromkeys((*EVENTS, *ADJUSTERS), "a hook of a Callback: give one with callbacks=[...]"),
    **dict.fromkeys(TRAINER_METHODS, "a method of a trainer: override it in a subclass of DetectionTrainer"),
    **dict.fromkeys(LOSS_METHODS, "a method of the criterion that the model's init_criterion() returns"),
    "init_criterion": "a method of the model: return a subclass of DetectionModel from get_model()",
}
"""Hook of ours -> where it is called."""

SPELLINGS: Mapping[str, str] = {name.replace("_", ""): name for name in HOMES}
"""Hook of ours without its underscores -> the hook."""

SCHEDULE = "schedule=..., lf(self, fraction), or adjust_rates() of a Callback"
STEP = "train_batch(self, batch), or preprocess_batch() and adjust_loss() of a Callback"
CRITERION = "init_criterion(self) of the model that get_model() returns"
UPDATE = "update(self, batch, detections)"
INSTEAD: Mapping[str, str] = {
    # The trainer of the incumbent (spec core A.4).
    "check_resume": "resume_training(self, ckpt)",
    "compute_class_weights": 'class_weights="balanced", or a list',
    "get_class_counts": 'class_weights="balanced", or a list',
    "on_plot": "plot_training_samples(self, batch, ni), plot_training_labels(self) or plot_metrics(self)",
    "read_results_csv": "self.history.rows, which is what results.csv holds",
    "set_class_weights": "class_weights=..., or model.class_weights in set_model_attributes(self)",
    "set_model_names_for_load": "set_model_attributes(self)",
    "_build_train_pipeline": "setup_loaders(self) and setup_optimizer(self)",
    "_clear_memory": "on_train_epoch_end() of a Callback",
    "_close_dataloader_mosaic": "close_mosaic=..., or augmentation_closed(self)",
    "_do_train": "fit(self), train_epoch(self) or train_batch(self, batch)",
    "_get_memory": "progress_string(self)",
    "_model_train": "on_train_epoch_start() of a Callback, and self.freeze_layer_names",
    "_setup_ddp": "take_place(self)",
    "_setup_train": "setup(self)",
    # Its model, loss and validator, whose names mean other things elsewhere.
    "forward": "__call__(self, preds, batch) of a criterion, or predict(self, x) of a model",
    "_predict_once": "predict(self, x)",
    **dict.fromkeys(("_process_batch", "_prepare_batch", "_prepare_pred", "match_predictions", "scale_preds"), UPDATE),
    **dict.fromkeys(("eval_json", "pred_to_json", "save_one_txt"), "save_json=True or save_txt=True, or results(self)"),
    "plot_predictions": "plot_detections(self, batch, detections, step)",
    "plot_val_samples": "plot_labels(self, batch, step)",
    "gather_stats": "gather(self)",
    "preprocess": "preprocess_batch(self, batch)",
    "init_metrics": "start(self, network, device)",
    "update_metrics": UPDATE,
}

MAKE = "(?:get|build|create|make|prepare|init|initiali[sz]e|setup|set_up|configure|define|compute|calculate|calc)_"
ROLES: tuple[tuple[str, str], ...] = (
    (r"(?:train|training|run)_?(?:one_)?(?:step|iter|iteration|one_batch)|process_batch|forward_backward", STEP),
    (r"(?:train|run)_(?:one|single)_epoch|training_epoch|epoch_step", "train_epoch(self)"),
    (r"(?:val|valid|validation|eval|evaluation|test)_?(?:step|epoch|loop)|prediction_step", "validate(self)"),
    (rf"{MAKE}(?:train_)?(?:criterion|criteria|loss|losses|loss_fn|loss_function)|criterion|loss_fn", CRITERION),
    (
        rf"(?:{MAKE})?(?:train|training|val|validation|test)_(?:data_?)?loaders?|{MAKE}(?:data_?)?loaders?",
        "get_dataloader(self, dataset_path, batch_size, rank, mode)",
    ),
    (rf"{MAKE}(?:train_|val_|test_)?datasets?", "build_dataset(self, img_path, mode, batch)"),
    (rf"{MAKE}optimi[sz]ers?", "build_optimizer(self, model, name, lr, momentum, decay, iterations)"),
    (
        rf"{MAKE}(?:lr_)?schedul(?:er|ers|e)|(?:lr_)?scheduler(?:_step)?|(?:adjust|update)_(?:lr|learning_rate)",
        SCHEDULE,
    ),
    (rf"{MAKE}(?:model|network|net)", "get_model(self, cfg, weights, verbose)"),
    (rf"{MAKE}(?:validator|evaluator)", "get_validator(self)"),
    (rf"{MAKE}(?:augmentations?|transforms?)", "transforms=[...], or build_dataset(self, img_path, mode, batch)"),
    (r"(?:check_)?early_stop(?:ping)?", "stop=..., patience=..., or should_stop(self)"),
    (rf"(?:{MAKE})?fitness", "validate(self), or adjust_fitness() of a Callback"),
    (r"update_ema|ema_update", "optimizer_step(self)"),
    (r"(?:save|store)_(?:checkpoint|ckpt)", "save_model(self), or adjust_checkpoint() of a Callback"),
    (r"(?:load|restore)_(?:checkpoint|ckpt)", "resume_training(self, ckpt)"),
    (r"clip_(?:gradients?|grads?|grad_norm)|(?:optimizer_)?zero_grad|optimize", "optimizer_step(self)"),
    (r"(?:preprocess|prepare)_(?:data|images?|inputs?)", "preprocess_batch(self, batch)"),
    (r"(?:log|write)_metrics", "save_metrics(self, metrics)"),
)
"""Pattern of names that say what a method is for -> what is called for that."""

TRAINER_ROLES: tuple[tuple[str, str], ...] = (
    (r"backward", STEP),
    (r"loss|bbox_loss", CRITERION),
    (r"evaluate|run_validation", "validate(self)"),
    (r"compute_metrics", "validate(self), or adjust_metrics() of a Callback"),
    (r"setup_train", "setup(self)"),
    (r"before_train(?:ing)?", "on_train_start() of a Callback"),
    (r"after_train(?:ing)?", "on_train_end() of a Callback"),
    (r"before_(?:train_)?epoch", "on_train_epoch_start() of a Callback"),
    (r"(?:after|end)_(?:train_)?epoch", "on_train_epoch_end() of a Callback"),
    (r"before_(?:train_)?(?:batch|step|iter)", "on_train_batch_start() of a Callback"),
    (r"after_(?:train_)?(?:batch|step|iter)", "on_train_batch_end() of a Callback"),
    (r"collate_fn", "get_dataloader(self, dataset_path, batch_size, rank, mode)"),
    (r"lr_lambda", SCHEDULE),
)
"""The same for names that are only a trainer's."""

EVENT_LIKE = r"(?:before|after)_.+|(?:.+_)?(?:epoch|batch)_(?:start|end)"  # methods of a Callback
VALUES = r"(?:lr_)?scheduler|criterion|loss|loss_fn|bbox_loss|fitness|lr_lambda|collate_fn|.*_loaders?"
"""Names under which objects of many kinds hold a value: one that is read somewhere need not be a user's method."""


def hook_instead(name: str, near: Iterable[str] = ()) -> str | None:
    """Return a sentence about what to use in place of a method of this name; None if the name is of no hook.

    Args:
        name: of a method that nothing calls.
        near: hooks of the class that it is in, one of which may have been meant.
    """
    near = list(near)
    if name in INSTEAD:
        return f"use {INSTEAD[name]}."
    if spelled := SPELLINGS.get(name.replace("_", "").lower()):
        meant = spelled in near and spelled != name
        return f"did you mean {spelled}()?" if meant else f"{spelled}() is {HOMES[spelled]}."
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).strip("_").lower()
    for pattern, use in (*ROLES, *(TRAINER_ROLES if is_trainers(near) else ())):
        if re.fullmatch(pattern, plain):
            return f"use {use}."
    found = nearest(name, (known for known in near if len(known) >= len("validate")), cutoff=TYPING_MISTAKE)
    if found:
        return f"did you mean {found[0]}()?"
    if name.startswith("on_") or (is_callbacks(near) and re.fullmatch(EVENT_LIKE, plain)):
        return no_such("event", f"on_{plain.removeprefix('on_')}", EVENTS)
    return no_such("adjuster", plain, ADJUSTERS) if name.startswith("adjust_") else None


def is_trainers(hooks: Collection[str]) -> bool:
    """Whether these are the hooks of a trainer."""
    return "train_batch" in hooks


def is_callbacks(hooks: Collection[str]) -> bool:
    """Whether these are the hooks of a callback."""
    return "on_train_start" in hooks


def no_such(kind: str, name: str, known: Collection[str]) -> str:
    """Return a sentence that says which hooks of this kind a Callback has, and which one resembles the name."""
    found = nearest(name, known, cutoff=RESEMBLANCE)
    hint = f"; the nearest is {found[0]}()" if found else ""
    return f"no {kind} has this name{hint}. A Callback has {', '.join(known)}."
