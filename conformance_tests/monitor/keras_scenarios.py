"""Checks of `inna_keras.Monitor`; imported only where a Keras backend has been chosen."""

import csv
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import inna_keras
from conformance_tests.monitor.reference import EVERY, N_STEPS, START, Setting, X, Y


def samples(setting: Setting) -> list[dict[str, float]]:
    """Return the samples of a run on the linear regression of `reference`, in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
        model.set_weights([START])
        optimizer = getattr(inna_keras, setting.algorithm)(setting.lr, weight_decay=None, **setting.hyper)
        model.compile(optimizer=optimizer, loss="mse")
        monitor = inna_keras.Monitor((X, Y), every=EVERY, sharpness_every=EVERY)
        model.fit(X, Y, batch_size=len(X), epochs=N_STEPS, shuffle=False, verbose=0, callbacks=[monitor])
    finally:
        keras.config.set_floatx(before)
    return [sample._asdict() for sample in monitor.history]
