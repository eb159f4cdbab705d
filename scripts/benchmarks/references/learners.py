"""Other methods to learn a latency, with which the benchmark of interpolation is compared.

Reads points from standard input like the example `learn` of latlas_shared, and prints three guesses for each requested
point: by gradient boosting, by the nearest points, and in proportion to the work. The first feature is the logarithm of
the work, and the target is the logarithm of the latency per unit of work.
"""

import sys

import numpy
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LEARNERS = [
    HistGradientBoostingRegressor(max_iter=500, learning_rate=0.05, min_samples_leaf=5, random_state=0),
    make_pipeline(StandardScaler(), KNeighborsRegressor(4, weights="distance")),
]


def main():
    points = numpy.loadtxt(sys.stdin)
    known, asked = points[points[:, 0] == 1], points[points[:, 0] == 0]
    guesses = [learner.fit(known[:, 2:], known[:, 1]).predict(asked[:, 2:]) for learner in LEARNERS]
    guesses.append(numpy.full(len(asked), numpy.median(known[:, 1])))
    numpy.savetxt(sys.stdout, numpy.transpose(guesses))


if __name__ == "__main__":
    main()
