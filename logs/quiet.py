"""Imported before TensorFlow, whose import would otherwise print a page of notes and warnings."""

import os
import warnings

# C++ notes; failed operations still raise. Set it to 0 to see them.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# TensorFlow 1.15 spells NumPy types in a way that later NumPy versions warn about.
warnings.filterwarnings('ignore', category=FutureWarning)
warnings.filterwarnings('ignore', category=DeprecationWarning)
