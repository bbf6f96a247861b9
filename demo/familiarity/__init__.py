"""How `familiarity.json` of the bundled model is made and measured; see eightfold.solver."""
