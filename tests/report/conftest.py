"""Figures are drawn without a screen, and closed after every test."""

import matplotlib
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def headless():
    matplotlib.use("Agg")
    yield
    plt.close("all")
