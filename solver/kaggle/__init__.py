"""The competition's side of the solver: `predict` always answers, in time.

```python
from eightfold.solver import kaggle

config = kaggle.configure(input_folder)
kaggle.start(config, reading=kaggle.preload(config))  # returns at once; the model loads meanwhile
kaggle.serve(input_folder)  # the competition's server, or a local stand-in
kaggle.stop()
```
"""

from .kaggle_config import KaggleConfig
from .kaggle_session import Session
from .predict_endpoint import configure, predict, preload, serve, start, stop

__all__ = ["KaggleConfig", "Session", "configure", "predict", "preload", "serve", "start", "stop"]
