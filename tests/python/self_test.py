"""Calls a Teleport server with everything that the format can express and checks the answers.

    python3 tests/python/self_test.py ADDRESS [--quick]

The server is the example `serve` or any other with its methods `echo`, `add` and `fail`. Each function
`test_*` is one test; the exit code is 0 if all passed.
"""

import argparse
import pathlib
import re
import sys
import time

import numpy as np

import teleport_format as wire
from teleport_client import Client
from teleport_format import BFloat16, ConnectionLost, ProtocolError, RemoteError, TooLarge

def same(a, b):
    """Returns True if two trees have the same structure, key order, dtypes, shapes and bytes."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if a is None or isinstance(a, (str, bytes)):
        return type(a) is type(b) and a == b
    a = np.asanyarray(a)
    if isinstance(a, BFloat16) != isinstance(b, BFloat16) or a.shape != b.shape:
        return False
    little = a.dtype.newbyteorder("<")
    # NumPy widens items of zero bytes when it converts them.
    return b.dtype == little and (a.nbytes == b.nbytes == 0 or a.astype(little).tobytes() == b.tobytes())


def check_echo(client, tree):
    reply = client.call("echo", tree, timeout=WATCHDOG_S)
    assert same(tree, reply), f"sent {tree!r}\n    got  {reply!r}"


def check_error(client, kind, ran, method, tree=None):
    try:
        reply = client.call(method, tree, timeout=WATCHDOG_S)
    except RemoteError as error:
        assert error.kind == kind, f"kind {error.kind!r}, expected {kind!r}: {error}"
        assert error.ran == ran, f"ran {error.ran!r}, expected {ran!r}: {error}"
        return error
    raise AssertionError(f"{method} returned {reply!r}, but the error {kind} was expected")


WATCHDOG_S = 120.0


def test_dtypes(client, _):
    numbers = "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()
    for name in numbers:
        check_echo(client, np.arange(6).reshape(2, 3).astype(name))
    check_echo(client, BFloat16([[0x3F80, 0x7FC0], [0x0001, 0xFF80]]))
    check_echo(client, np.array([np.nan, -0.0, np.inf]))
    check_echo(client, np.array([b"a", b"long text", b""]))
    check_echo(client, np.array(["a", "\u00e9\U0001f600", ""]))
    check_echo(client, np.array(["2024-02-29", "NaT"], "M8[D]"))
    check_echo(client, np.array([1, -1], "m8[25us]"))
    check_echo(client, np.array([3], "m8"))
    for name in ["S0", "U0"]:
        check_echo(client, np.ndarray((2, 3), name))


def test_shapes(client, _):
    for shape in [(), (0,), (3, 0, 2), (1,) * 32]:
        check_echo(client, np.full(shape, 7, np.int16))
    check_echo(client, np.array("text"))
    check_echo(client, np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2])
    check_echo(client, np.arange(5, dtype=">i4"))


def test_numbers_become_arrays(client, _):
    for value, dtype in [(7, "i8"), (2.5, "f8"), (True, "?"), (1 + 2j, "c16")]:
        reply = client.call("echo", value, timeout=WATCHDOG_S)
        assert reply.shape == () and reply.dtype == np.dtype(dtype) and reply == value, repr(reply)


def test_structure(client, _):
    for tree in [None, "", "caf\u00e9", b"", b"\0\xff", [], {}, [[]], {"": None}]:
        check_echo(client, tree)
    check_echo(client, {"z": 1, "a": [None, "x", {"k": b"y", "b": {}}], "\u00e9": b"", "m": {"y": 1, "x": 2}})
    check_echo(client, {f"key{index % 7}-{index}": np.arange(index) for index in range(200)})
    deep = None
    for _ in range(38):
        deep = {"next": [deep]} if isinstance(deep, list) else [deep]
    check_echo(client, deep)


def test_large(client, quick):
    """An array past the eager credit, which needs a grant and several chunks in both directions."""
    size = (8 if quick else 100) << 20
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    start = time.monotonic()
    check_echo(client, data)
    seconds = time.monotonic() - start
    print(f"    {size >> 20} MiB echoed and compared: {seconds:.2f} s")
    # Leaves that cross the borders of chunks.
    check_echo(client, [data[: (1 << 20) - 3], {"b": data[:5], "a": data[: (1 << 20) + 7]}, "end"])


def test_many_in_flight(client, quick):
    """Small calls with more bytes than the eager credit, beside large calls."""
    count = 40 if quick else 400
    trees = [{"i": i, "x": np.full(i * 997 % 150_000, i % 256, np.uint8)} for i in range(count)]
    trees[count // 2] = {"large": np.zeros(3 << 20, np.float32), "i": -1}
    futures = [client.start("echo", tree) for tree in trees]
    for tree, future in reversed(list(zip(trees, futures))):
        assert same(tree, future.wait(WATCHDOG_S))


def test_add(client, _):
    assert same(client.call("add", {"foo": 1, "bar": 1}, WATCHDOG_S), {"result": np.array(2)})
    floats = {"foo": np.array([0.5, 1], np.float32), "bar": np.array([1, 2], np.float32)}
    assert same(client.call("add", floats, WATCHDOG_S), {"result": np.array([1.5, 3], np.float32)})


def test_errors(client, _):
    error = check_error(client, "failed", "yes", "fail", {"message": "on purpose"})
    assert "on purpose" in error.message, error.message
    check_error(client, "unknown_method", "no", "no-such-method", {"x": 1})
    # The answer may arrive while the argument still waits for its grant.
    check_error(client, "unknown_method", "no", "no-such-method", np.zeros(4 << 20, np.uint8))
    check_echo(client, "the connection goes on")


def test_limits_of_the_server(client, _):
    deep = None
    for _ in range(client.server["max_depth"] + 1):
        deep = [deep]
    try:
        client.call("echo", deep, WATCHDOG_S)
    except TooLarge:
        return check_echo(client, "nothing was sent")
    raise AssertionError("a tree deeper than the server's max_depth was sent")


def test_checksums(_, quick):
    with Client(test_checksums.address, name="python with checksums", checksum=True) as client:
        check_echo(client, {"a": np.arange((1 if quick else 3) * 400_000), "b": "text"})
        check_echo(client, {"a": np.arange(100), "b": "inline"})


def test_inline_payload_and_others(client, _):
    """Payloads around the longest inline one, and arrays around the longest that the server sends inline."""
    for size in [1, 2047, 2048, 2049, (16 << 10) - 1, 16 << 10, (16 << 10) + 1]:
        check_echo(client, np.arange(size, dtype=np.uint8))
    for count in [1, 2, 8, 9]:
        check_echo(client, [np.full(2048, index, np.uint8) for index in range(count)])


def test_checksum_vectors(_client, _quick):
    assert wire.crc32c(b"123456789") == 0xE3069283
    assert wire.crc32c(bytes(32)) == 0x8A9136AA and wire.crc32c(b"\xff" * 32) == 0x62A8AB43
    data = np.random.default_rng(1).integers(0, 256, 50_001, np.uint8).tobytes()
    assert wire.crc32c(data) == wire.crc32c_plain(data) ^ 0xFFFFFFFF


FORMAT = pathlib.Path(__file__).resolve().parents[2] / "teleport-wire" / "FORMAT.md"


def golden(name):
    """Returns the bytes of a ```hex block of `FORMAT.md`."""
    block = re.search(rf"```hex {name}\n(.*?)```", FORMAT.read_text(), re.S)
    assert block, f"{FORMAT} has no block `{name}`"
    return bytes.fromhex("".join(line.split("#")[0] for line in block[1].splitlines()))


def test_golden_bytes(client, _):
    """The examples of the format are encoded and decoded as documented."""
    assert wire.preface() == golden("preface")
    message = wire.Outgoing({"foo": 1, "bar": 2}, client.server)
    lengths = len(message.signature), len(message.order)
    call = wire.CALL_FIXED.pack(3, 0, *lengths, 0, 0) + b"add" + message.signature + message.order
    (views,) = wire.chunks(message.payload)
    payload = b"".join(views)
    inline = wire.frame(wire.CALL, 1, call, wire.EAGER | wire.INLINE, payload=payload)
    assert inline == golden("call") and message.memory == 72
    assert wire.frame(wire.CALL, 1, call, wire.EAGER) == golden("call-before-data")
    assert wire.header(wire.DATA, 0, 1, 16, 0) + payload == golden("data")
    tree = {
        "days": np.zeros(4, "M8[25s]"), "image": np.zeros((64, 64, 3), np.uint8), "list": [None, b"bytes"],
        "names": np.ndarray((0, 2), "<U8"), "text": "sevenby", "x": np.float32(0),
    }  # fmt: skip
    assert wire.Outgoing(tree, client.server).signature == golden("signature")
    assert wire.decode_hello(golden("hello")[32:])["name"] == "actor"
    error = wire.decode_error(golden("error")[32:])
    assert (error.kind, error.ran, error.code, error.message) == ("failed", "yes", "ENOENT", "no such file")
    _, flags, _, _, _, checksum = wire.check_header(golden("result")[:32])
    result, payload = wire.split_result(flags, golden("result")[32:])
    assert flags & wire.CHECKED and wire.crc32c(payload) == checksum
    incoming = wire.Incoming(result[8:], b"", True)
    incoming.memory_for(8)[0][:] = payload
    assert same({"result": 3}, incoming.tree())


def test_cancel(client, quick):
    """A call that waits for its grant ends at once. A call that was sent succeeds or ends as cancelled."""
    large = client.start("echo", np.zeros((8 if quick else 64) << 20, np.uint8))
    small = client.start("echo", 1)
    large.cancel()
    small.cancel()
    for future in (large, small):
        try:
            future.wait(WATCHDOG_S)
        except RemoteError as error:
            assert error.kind == "cancelled", error
    check_echo(client, "the connection goes on")


def run(test, client, quick):
    """Runs one test and prints the outcome. Returns if it passed and if the connection is still usable."""
    name, start = test.__name__[5:], time.monotonic()
    try:
        test(client, quick)
    except Exception as error:  # any error is reported, and the next test runs
        print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
        return False, not isinstance(error, (ConnectionLost, ProtocolError, TimeoutError))
    print(f"ok      {name} ({time.monotonic() - start:.2f} s)", flush=True)
    return True, True


def self_test(address, quick):
    """Runs all tests against the server. Returns the number of failures."""
    test_checksums.address = address
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    failed, client = 0, None
    for test in tests:
        client = client or Client(address, timeout=WATCHDOG_S)
        passed, good = run(test, client, quick)
        failed += not passed
        if not good:
            client.close()
            client = None
    if client is not None:
        client.close()
    print(f"{len(tests) - failed} passed, {failed} failed", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description="Check a Teleport server with all that the format can say.")
    parser.add_argument("address", help="of a server with the methods echo, add and fail")
    parser.add_argument("--quick", action="store_true", help="8 MiB instead of 100 MiB, and fewer calls")
    arguments = parser.parse_args()
    try:
        failed = self_test(arguments.address, arguments.quick)
    except (wire.TeleportError, OSError) as error:
        sys.exit(f"FAILED  to connect to {arguments.address}: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
