"""A linear classifier of 8 × 8 pixels from 0 to 16: 650 parameters, trained by SGD. For MicroPython."""

import math
from array import array
from hashlib import sha256

CLASSES, INPUTS = 10, 64
VALUES = CLASSES * (1 + INPUTS)
ARRAYS = [{"name": "fc1.bias", "shape": [CLASSES], "role": "parameter"}]
ARRAYS.append({"name": "fc1.weight", "shape": [CLASSES, INPUTS], "role": "parameter"})
SCALED = [(pixel - 4.8767) / 6.0111 for pixel in range(17)]


def read_rows(path):
    """The examples in a CSV file, each as its 64 pixels and its class, a byte for each."""
    with open(path) as file:
        return [bytes([int(cell) for cell in line.split(",")]) for line in file]


def forward(weights, row):
    """The inputs, the class, and the probability of each class."""
    inputs, outputs = [SCALED[pixel] for pixel in row[:INPUTS]], list(weights[:CLASSES])
    for one in range(CLASSES):
        start = CLASSES + INPUTS * one
        for i in range(INPUTS):
            outputs[one] += weights[start + i] * inputs[i]
    exponentials = [math.exp(output - max(outputs)) for output in outputs]
    total = sum(exponentials)
    return inputs, row[INPUTS], [exponential / total for exponential in exponentials]


def measure(weights, rows):
    right, loss = 0, 0.0
    for row in rows:
        _, label, shares = forward(weights, row)
        right += shares.index(max(shares)) == label
        loss -= math.log(max(shares[label], 1e-30))
    return {"accuracy": right / len(rows), "loss": loss / len(rows)}


def train(weights, rows, settings, draw, after_batch):
    """Trains ``weights`` in place, and returns the number of steps. The orders of the examples follow from ``draw``."""
    lr = (0.05 if settings["lr"] is None else settings["lr"]) * settings["lr_factor"]
    momentum = 0.9 if settings["momentum"] is None else settings["momentum"]
    size, velocity, steps = settings["batch_size"] or 32, array("f", [0.0] * VALUES), 0
    for epoch in range(settings["epochs"] or 10):
        order = sorted([(sha256(b"%s %d %d" % (draw, epoch, i)).digest(), i) for i in range(len(rows))])
        for start in range(0, len(rows), size):
            batch, gradient = order[start : start + size], array("f", [0.0] * VALUES)
            for _, index in batch:
                inputs, label, errors = forward(weights, rows[index])
                errors[label] -= 1
                for one in range(CLASSES):
                    error, begin = errors[one] / len(batch), CLASSES + INPUTS * one
                    gradient[one] += error
                    for i in range(INPUTS):
                        gradient[begin + i] += error * inputs[i]
            for i in range(VALUES):
                velocity[i] = momentum * velocity[i] + gradient[i]
                weights[i] -= lr * velocity[i]
            steps += 1
            after_batch()
    return steps
