"""Runs all tests, and counts them in the form of cargo."""

import sys
import unittest

import test_latlas
import test_packed
import test_pages
import test_profile
import test_torch

suite = unittest.TestSuite()
for module in (test_latlas, test_packed, test_pages, test_profile, test_torch):
    suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
result = unittest.TextTestRunner(verbosity=1).run(suite)
failed = len(result.failures) + len(result.errors)
skipped = len(result.skipped)
passed = result.testsRun - failed - skipped
print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; {skipped} ignored")
sys.exit(failed > 0)
