"""Runs all tests, and counts them in the form of cargo."""

import sys
import unittest

import test_latlas

suite = unittest.defaultTestLoader.loadTestsFromModule(test_latlas)
result = unittest.TextTestRunner(verbosity=1).run(suite)
failed = len(result.failures) + len(result.errors)
skipped = len(result.skipped)
passed = result.testsRun - failed - skipped
print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; {skipped} ignored")
sys.exit(failed > 0)
