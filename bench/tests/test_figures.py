import unittest

import figures


def rounds(*values, **more):
    return [{"rps": value, **more} for value in values]


class Median(unittest.TestCase):
    def test_is_of_the_rounds_that_count(self):
        self.assertEqual(figures.median(rounds(3, 1, 2) + [{"rps": 100, "void": "1 x read"}], "rps"), 2)
        self.assertEqual(figures.median(rounds(1, 2), "rps"), 1.5)

    def test_is_nothing_without_figures(self):
        self.assertIsNone(figures.median([], "rps"))
        self.assertIsNone(figures.median(rounds(1), "p99_us"))
        self.assertIsNone(figures.median([{"void": "it died"}], "rps"))

    def test_is_of_each_figure_for_itself(self):
        three = [{"rps": 1, "p99_us": 30}, {"rps": 2, "p99_us": 10}, {"rps": 3, "p99_us": 20}]
        self.assertEqual((figures.median(three, "rps"), figures.median(three, "p99_us")), (2, 20))


class Ratio(unittest.TestCase):
    def test_divides(self):
        self.assertEqual(figures.ratio(3, 2), 1.5)
        self.assertEqual(figures.ratio(0, 2), 0)

    def test_is_nothing_where_one_is_missing(self):
        self.assertIsNone(figures.ratio(None, 2))
        self.assertIsNone(figures.ratio(3, None))
        self.assertIsNone(figures.ratio(3, 0))

    def test_best_is_by_the_figure(self):
        self.assertEqual(figures.best("rps", [1, None, 3]), 3)
        self.assertEqual(figures.best("p99_us", [2, None, 3]), 2)
        self.assertIsNone(figures.best("rps", [None]))

    def test_spread_is_the_largest_distance_from_the_median(self):
        self.assertAlmostEqual(figures.spread(rounds(90, 100, 120), "rps"), .2)
        self.assertIsNone(figures.spread(rounds(90), "rps"))


class Cliffs(unittest.TestCase):
    def test_a_flat_series_has_none(self):
        self.assertEqual(figures.cliffs([(1, 90), (16, 50), (64, 40), (256, 45), (1024, 60)], "flat"), [])

    def test_a_flat_series_that_doubles_has_one(self):
        self.assertEqual(figures.cliffs([(1, 50), (16, 40), (64, 90), (256, 45)], "flat"), [(64, 90, 40)])

    def test_the_order_of_points_does_not_matter(self):
        self.assertEqual(figures.cliffs([(256, 45), (64, 90), (1, 50), (16, 40)], "flat"), [(64, 90, 40)])

    def test_a_fixed_part_and_one_in_proportion_is_linear(self):
        sizes = [0, 1000, 10 ** 5, 10 ** 6, 10 ** 7, 10 ** 8]
        self.assertEqual(figures.cliffs([(x, 50 + x / 1000) for x in sizes], "linear"), [])
        self.assertEqual(figures.cliffs([(x, 50) for x in sizes], "linear"), [])
        self.assertEqual(figures.cliffs([(x, x / 1000) for x in sizes[1:]], "linear"), [])

    def test_noise_is_no_cliff(self):
        noise = [1.2, .8, 1.3, .8, 1.1, .9]
        sizes = [0, 1000, 10 ** 5, 10 ** 6, 10 ** 7, 10 ** 8]
        self.assertEqual(figures.cliffs([(x, n * (50 + x / 1000)) for x, n in zip(sizes, noise)], "linear"), [])

    def test_a_step_is_one(self):
        points = [(0, 50), (1000, 51), (10 ** 5, 1000), (10 ** 6, 1050), (10 ** 7, 10050), (10 ** 8, 100050)]
        self.assertEqual([x for x, _, _ in figures.cliffs(points, "linear")], [10 ** 5])

    def test_growth_with_the_square_is_one(self):
        self.assertIn(1000, [x for x, _, _ in figures.cliffs([(x, 10 + x * x) for x in (1, 10, 100, 1000)], "linear")])

    def test_too_few_points_have_none(self):
        self.assertEqual(figures.cliffs([], "linear"), [])
        self.assertEqual(figures.cliffs([(1, 5)], "flat"), [])


class Shown(unittest.TestCase):
    def test_times_have_their_unit(self):
        self.assertEqual([figures.shown("p99_us", t) for t in (316, 4700, 1_030_000)], ["316 µs", "4.7 ms", "1.03 s"])
        self.assertEqual(figures.shown("rps", 23845.2), "23,845")
        self.assertEqual(figures.shown("rps", None), "–")
