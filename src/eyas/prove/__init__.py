"""Do customisations fit together (before the first step), and did each have its effect (after a validation)?"""
