"""Components of a run, made from its settings or passed by the user.

- Data and networks: ``datasets``, ``networks``, ``initialization``, ``compatibility``, ``tracing``,
  ``memory``.
- Objective and optimizer: ``objectives``, ``teacher_images``, ``optimizers``.
- Components that the user passes or names: ``arguments``, ``modules``, ``component_records``, ``imports``.
"""
