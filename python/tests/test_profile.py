"""`Client.profile`, against a coordinator that says what it was told to say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import threading
import unittest
import unittest.mock
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import latlas

TABLE = Path(__file__).parent / "table.json"
ID = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa"
HARDWARE = "test-box-2c.cpu"

NETWORK: dict[str, Any] = {
    "name": "mine",
    "input": {"n": 1, "c": 32, "h": 28, "w": 28},
    "layers": [
        {"op": "Conv3x3", "c_out": 32, "stride": 1},
        {"op": "MBConv3_3x3", "c_out": 32, "stride": 1},
        {"op": "Conv1x1", "c_out": 32, "stride": 1},
    ],
}
KEYS = [f"{layer['op']}:n1-h28-w28-i32-o32-s1" for layer in NETWORK["layers"]]


def table(*lacking: str, **changes: Any) -> str:
    """The table without some rows."""
    document = json.loads(TABLE.read_text())
    names = [key.split(":")[0] for key in lacking]

    def stays(row: dict[str, Any]) -> bool:
        return row["op_type"] not in names or (row["input_h"], row["channels_out"]) != (28, 32)

    document["rows"] = list(filter(stays, document["rows"]))
    return json.dumps({**document, **changes})


class Farm:
    """Answers by method and path; several answers of one path are given in turn, and the last of them again."""

    def __init__(self, answers: list[tuple[str, Any]]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answers = answers
        self.on_events: Any = None
        self.release = threading.Event()
        farm = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply()

            def do_POST(self) -> None:
                self.reply()

            def reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                call = f"{self.command} {self.path}"
                farm.asked.append((call, body))
                if self.path.endswith("/events") and farm.on_events is not None:
                    farm.on_events()
                    farm.release.wait()
                fitting = [place for place, (path, _) in enumerate(answers) if path == call]
                if not fitting:
                    detail = f"nothing is known of {call}"
                    problem = {"type": "x", "title": "Not found", "status": 404, "detail": detail}
                    return self.send(404, json.dumps(problem))
                answer = answers[fitting[0]][1] if len(fitting) == 1 else answers.pop(fitting[0])[1]
                self.send(200, answer if isinstance(answer, str) else json.dumps(answer))

            def send(self, status: int, text: str) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = latlas.Client(f"http://127.0.0.1:{self.server.server_address[1]}")

    def bodies(self, call: str) -> list[Any]:
        return [body for asked, body in self.asked if asked == call]

    def stop(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def status(done: int, total: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "hardware_id": HARDWARE,
        "config": "f32-t1",
        "space": "missing-rows",
        "networks": 1,
        "created_at": "2026-01-02T03:04:05Z",
        "total": total,
        "done": done,
        "failed": 0,
        "running": 0,
        "failures": {},
        "unattended": None,
        "cancelled": None,
        **changes,
    }


def events(*states: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(state)}\n\n" for state in states)


# What the catalog makes of NETWORK; it changes with the definitions of its ops.
DIGEST = "net2-083dc4ccb81fc42e59b9b60f09bcabef"

# The hardware of the table of these tests.
TABLE_HARDWARE = "amd-epyc-f25m17-2c-24gb.cpu"

# A line of the list of measured networks.
MEASURED: dict[str, Any] = {
    "network": {"digest": DIGEST, "spec": NETWORK},
    "latency": {
        "reuse_distance_bytes": 0,
        "quiet_micros": 600.0,
        "ci95_low_micros": 590.0,
        "ci95_high_micros": 620.0,
        "median_micros": 610.0,
        "samples": 100,
        "visits": 10,
    },
    "status": "ok",
    "reason": None,
    "agents": 1,
    "measured_at": "2026-01-02T03:04:05Z",
}

LATEST = f"GET /v1/tables/{HARDWARE}?format=json"
AFTER = f"GET /v1/tables/{HARDWARE}?config=f32-t1&format=json"
REQUEST = f"GET /v1/requests/{ID}"


class Profiles(unittest.TestCase):
    def farm(self, *answers: tuple[str, Any]) -> Farm:
        farm = Farm(list(answers))
        self.addCleanup(farm.stop)
        return farm

    def usual(self) -> Farm:
        """A farm that measures what is missing."""
        return self.farm(
            (LATEST, table(*KEYS[1:])),
            ("POST /v1/requests", status(0)),
            (REQUEST, status(0)),
            (f"{REQUEST}/events", events(status(1, running=1), status(3))),
            (AFTER, table()),
        )

    def test_exactly_the_missing_rows_and_the_network_are_asked_for(self) -> None:
        farm = self.usual()
        profile = farm.client.profile(NETWORK, HARDWARE)
        (asked,) = farm.bodies("POST /v1/requests")
        self.assertEqual(asked["definition"]["keys"], KEYS[1:])
        self.assertEqual([network["name"] for network in asked["networks"]], ["mine"])
        self.assertEqual((asked.get("calibrate"), asked["remeasure"]), (None, False))
        assert profile.predicted is not None
        self.assertEqual(profile.predicted.ms, latlas.Table.load(TABLE).predict(NETWORK).ms)
        self.assertEqual((profile.request_id, len(profile.table)), (ID, 39))
        # The table of this test was not held against the network.
        self.assertIsNone(profile.measured_ms)
        self.assertEqual(profile.failed, {"network mine": "not measured"})

    def test_without_missing_rows_only_the_network_is_asked_for(self) -> None:
        farm = self.farm((LATEST, table()), ("POST /v1/requests", status(1, 1)))
        request = farm.client.profile(latlas.Network.from_dict(NETWORK), HARDWARE, wait=False, remeasure=True)
        (asked,) = farm.bodies("POST /v1/requests")
        self.assertNotIn("definition", asked)
        self.assertTrue(asked["remeasure"])
        self.assertEqual(request.request_id, ID)

    def test_calibration_networks_are_made_of_the_ops_of_the_network(self) -> None:
        farm = self.farm((LATEST, table(KEYS[1])), ("POST /v1/requests", status(0)))
        farm.client.profile(NETWORK, HARDWARE, wait=False, calibrate=2)
        (asked,) = farm.bodies("POST /v1/requests")
        self.assertEqual(asked["definition"]["keys"], [KEYS[1]])
        names = [network["name"] for network in asked["networks"]]
        self.assertEqual(names, ["mine", "calibration-1-0", "calibration-1-1"])
        ops = {layer["op"] for network in asked["networks"] for layer in network["layers"]}
        self.assertLessEqual(ops, {layer["op"] for layer in NETWORK["layers"]})

    def test_the_measured_latency_stands_beside_the_prediction(self) -> None:
        accuracy = json.loads(TABLE.read_text())["accuracy"]
        entry = {**accuracy["networks"][0], "name": "mine", "digest": DIGEST}
        entry.update(measured_micros=500.0, measured_low_micros=490.0, measured_high_micros=520.0)
        farm = self.usual()
        listed = {**accuracy, "networks": [entry]}
        farm.answers.insert(0, (AFTER, table(accuracy=listed)))
        profile = farm.client.profile(NETWORK, HARDWARE)
        self.assertEqual((profile.measured_ms, profile.measured_low, profile.measured_high), (0.5, 0.49, 0.52))
        self.assertEqual(profile.failed, {})
        # A table lists a thousand networks at most; the coordinator has all of them.
        farm.answers.insert(0, (AFTER, table(accuracy={**accuracy, "networks": []})))
        other = json.loads(json.dumps(MEASURED))
        other["network"]["digest"] = DIGEST[:-1] + "0"
        lines = "".join(f"{json.dumps(network)}\n" for network in (other, MEASURED))
        farm.answers.insert(0, (f"GET /v1/tables/{TABLE_HARDWARE}/networks?config=f32-t1", lines))
        profile = farm.client.profile(NETWORK, HARDWARE)
        self.assertEqual((profile.measured_ms, profile.measured_low, profile.measured_high), (0.6, 0.59, 0.62))

    def test_a_list_of_networks_is_one_request(self) -> None:
        farm = self.usual()
        other = {**NETWORK, "name": "other", "layers": NETWORK["layers"][:1]}
        profiles = farm.client.profile([NETWORK, latlas.Network.from_dict(other)], HARDWARE)
        (asked,) = farm.bodies("POST /v1/requests")
        self.assertEqual([network["name"] for network in asked["networks"]], ["mine", "other"])
        names = [profile.predicted and profile.predicted.name for profile in profiles]
        self.assertEqual(names, ["mine", "other"])

    def test_what_could_not_be_measured_is_told(self) -> None:
        failures = {KEYS[1]: "out of memory", "network mine": "worker died"}
        ended = status(1, failed=2, failures=failures)
        farm = self.farm(
            (LATEST, table(*KEYS[1:])),
            ("POST /v1/requests", status(0)),
            (REQUEST, ended),
            (AFTER, table(KEYS[1])),
        )
        profile = farm.client.profile(NETWORK, HARDWARE)
        self.assertIsNone(profile.predicted)
        self.assertEqual(profile.failed, {"network mine": "worker died", KEYS[1]: "not measured"})

    def test_a_handle_has_a_state_and_can_be_cancelled(self) -> None:
        by = {"at": "2026-01-02T03:04:05Z", "by": "ada", "tasks": 3}
        cancelled = status(0, cancelled=by)
        farm = self.farm(
            (LATEST, table(*KEYS)),
            ("POST /v1/requests", status(0)),
            (REQUEST, status(1, running=2)),
            (REQUEST, cancelled),
            (f"POST /v1/requests/{ID}/cancel", cancelled),
        )
        request = farm.client.profile(NETWORK, HARDWARE, wait=False)
        state = request.status()
        self.assertEqual((state.done, state.running, state.total, state.finished), (1, 2, 3, False))
        self.assertIsNone(state.cancelled)
        for state in (request.cancel(), farm.client.cancel(ID)):
            self.assertTrue(state.finished)
            assert state.cancelled is not None
            self.assertIn("by ada", state.cancelled)
        with self.assertRaisesRegex(latlas.CoordinatorError, f"request {ID} was cancelled by ada"):
            request.wait()

    def test_ctrl_c_ends_the_wait_and_says_how_to_go_on(self) -> None:
        # A process that a shell started in the background ignores the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before or signal.SIG_DFL)
        farm = self.usual()
        farm.on_events = lambda: os.kill(os.getpid(), signal.SIGINT)
        with self.assertRaises(KeyboardInterrupt) as caught:
            farm.client.profile(NETWORK, HARDWARE)
        self.assertIn(f"Request {ID} goes on", str(caught.exception))
        self.assertIn(f'.cancel("{ID}")', str(caught.exception))

    def test_progress_is_written_when_it_is_wanted(self) -> None:
        unattended = {"boxes": [], "more": 0}
        for wanted, shown in ((True, True), (None, False), (False, False)):
            farm = self.farm(
                (LATEST, table(*KEYS)),
                ("POST /v1/requests", status(0)),
                (REQUEST, status(0, unattended=unattended)),
                (f"{REQUEST}/events", events(status(0, unattended=unattended), status(3))),
                (AFTER, table()),
            )
            # As where tqdm is not installed.
            without_tqdm = unittest.mock.patch.dict("sys.modules", tqdm=None)
            with contextlib.redirect_stderr(io.StringIO()) as stderr, without_tqdm:
                farm.client.profile(NETWORK, HARDWARE, progress=wanted)
            said = stderr.getvalue()
            self.assertEqual("3 of 3  3 measured, 0 failed, 0 running\n" in said, shown, said)
            self.assertEqual("no agent works on it" in said, wanted is not False, said)

    @unittest.skipUnless(importlib.util.find_spec("tqdm"), "tqdm is not installed")
    def test_progress_is_a_bar_of_tqdm(self) -> None:
        farm = self.usual()
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            farm.client.profile(NETWORK, HARDWARE, progress=True)
        self.assertIn("3/3", stderr.getvalue())

    def test_other_threads_run_while_one_waits(self) -> None:
        farm = self.usual()
        other = threading.Event()
        farm.on_events = other.set
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(farm.client.profile(NETWORK, HARDWARE)))
        thread.start()
        # The handler runs in a thread of this interpreter.
        self.assertTrue(other.wait(300))
        farm.release.set()
        thread.join()
        self.assertEqual(len(results), 1)

    def test_mistakes_are_found_before_anything_is_sent(self) -> None:
        farm = self.farm()
        client = farm.client
        unfinished = {**NETWORK, "layers": [{"op": "Conv3x3"}]}
        cases: list[tuple[type[Exception], str, Any]] = [
            (latlas.UsageError, "networks: there is none", lambda: client.profile([], HARDWARE)),
            (latlas.UsageError, "", lambda: client.profile(NETWORK, "A B")),
            (TypeError, "a network is", lambda: client.profile([7], HARDWARE)),  # type: ignore[list-item]
            (latlas.NetworkError, "c_out: is missing", lambda: client.profile(unfinished, HARDWARE)),
            (latlas.UsageError, "request_id", lambda: client.cancel("../tokens")),
        ]
        for kind, text, call in cases:
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                call()
        self.assertEqual(farm.asked, [])
        with self.assertRaisesRegex(latlas.CoordinatorError, "nothing is known of GET /v1/tables"):
            client.profile(NETWORK, HARDWARE)
