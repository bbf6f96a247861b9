"""The competition's side of the solver: `predict`, which always answers, in time.

```python
from eightfold.solver import kaggle

config = kaggle.configure(input_folder)
kaggle.start(config, reading=kaggle.preload(config))  # returns at once; the model loads behind it
kaggle.serve(input_folder)  # the competition's server, or the stand-in
```
"""

from .kaggle_session import KaggleConfig, Session
from .predict_endpoint import configure, predict, preload, serve, start, stop

__all__ = ["KaggleConfig", "Session", "configure", "predict", "preload", "serve", "start", "stop"]
