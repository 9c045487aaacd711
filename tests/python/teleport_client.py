"""A small Teleport client that needs only the standard library and NumPy, written from `FORMAT.md` alone.

It shows that the format is enough to write a client in another language, and the project's tests run it
against a server in Rust:

    python3 tests/python/teleport_client.py tcp://localhost:2222 [--quick]

Or from Python:

    with Client("tcp://localhost:2222") as client:
        reply = client.call("add", {"foo": 1, "bar": 1})      # {"result": array(2)}
        futures = [client.start("echo", {"i": i}) for i in range(8)]
        replies = [future.wait() for future in futures]

Trees are dicts, lists, NumPy arrays, str, bytes and None. Python's numbers become arrays of rank 0, with
NumPy's dtypes. Replies hold arrays, also for numbers.

Sending: `teleport_format.Outgoing` splits a tree into metadata and views of its arrays' memory,
`Client._outbox` holds the frames, and `_write` sends them. Receiving: the generator `_frames` yields the
memory for the next bytes, `_read` fills it from the socket, and `teleport_format.Incoming` allocates a
message's memory from its metadata and makes a tree of it. Contiguous arrays are not copied.

The caller's thread does all work within `wait` and `call`, so the client answers no pings between calls.
The server disconnects a client that is silent for longer than the server's `max_silence`. The client never
reconnects, resumes or shares memory, and sends no deadline by default.
"""

import collections
import itertools
import re
import select
import socket
import struct
import time

from teleport_format import (
    ABORT, BadContents, CALL, CALL_FIXED, CANCEL, CHECKED, CHECKSUM, CREDIT, ConnectionLost, DATA, EAGER, ERROR,
    ERROR_KINDS, GOODBYE, GRANT, HELLO, INLINE, Incoming, MAX_INLINE_BYTES, MAX_METHOD_BYTES, NotTeleport,
    Outgoing, PING, PONG, PROTOCOL, ProtocolError, RESULT, Reader, RemoteError, SKIPPABLE, TeleportError,
    TooLarge, WANTS_CHECKSUMS, check_header, check_preface, chunks, crc32c, decode_error, decode_hello,
    encode_hello, frame, header, preface, split_result,
)  # fmt: skip

# Silence after which the client pings the server, and after which it gives up the server.
PING_S, MAX_SILENCE_S = 10.0, 120.0


class Future:
    """The future reply of one call."""

    def __init__(self, client, call_id):
        self._client, self.id, self._outcome = client, call_id, None

    def done(self):
        return self._outcome is not None

    def wait(self, timeout=None):
        """Waits for the reply and returns its tree, or raises the error of the call."""
        self._client._drive(self.done, timeout)
        tree, error = self._outcome
        if error is not None:
            raise error
        return tree

    def cancel(self):
        """Cancels the call. It ends at once if it was not fully sent, else when the server answers."""
        if not self.done():
            self._client._cancel(self.id)


class Client:
    """A blocking connection to a server, for use by one thread.

    `timeout` limits the seconds to connect. With `checksum`, payload has checksums in both directions.
    """

    def __init__(self, address, name="python", timeout=60.0, checksum=False):
        self._socket = dial(address, timeout)
        self._socket.setblocking(False)
        self._checksum = checksum
        self._last_id = 0
        # Open calls, results that are being received, and calls that wait for a grant.
        self._futures, self._incoming, self._waiting = {}, {}, {}
        # Frames to send first, calls whose chunks take turns, and views of the partly sent frames.
        self._outbox, self._transfers, self._writing = (collections.deque() for _ in range(3))
        self._lost, self._credit, self.server = None, 0, None
        self._heard, self._pinged = time.monotonic(), False
        self._parser = self._frames()
        self._want = next(self._parser)
        self._outbox.append(memoryview(preface()))
        self._send(HELLO, 0, encode_hello(name, WANTS_CHECKSUMS if checksum else 0))
        self._drive(lambda: self.server is not None, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, tree=None, timeout=None):
        """Calls `method` and waits for its reply."""
        return self.start(method, tree).wait(timeout)

    def start(self, method, tree=None, deadline=None):
        """Sends a call and returns a `Future`. Waits while the server's limit of open calls is reached.

        The server ends the call after `deadline` seconds, if given.
        """
        self._drive(lambda: len(self._futures) < self.server["max_open_calls"], None)
        name, message = method.encode(), Outgoing(tree, self.server)
        if not 1 <= len(name) <= MAX_METHOD_BYTES:
            raise ValueError(f"the method name has {len(name)} bytes; it must have 1 to {MAX_METHOD_BYTES}")
        deadline_us = 0 if deadline is None else max(1, int(deadline * 1e6))
        lengths = len(message.signature), len(message.order)
        metadata = CALL_FIXED.pack(len(name), 0, *lengths, 0, deadline_us)
        metadata += name + message.signature + message.order
        limit = self.server["max_metadata_bytes"]
        if len(metadata) > limit:
            raise TooLarge(f"{len(metadata)} bytes exceed the server's max_metadata_bytes of {limit}")
        self._last_id += 1
        future = self._futures[self._last_id] = Future(self, self._last_id)
        self._send_call(future.id, metadata, message)
        self._step(0)
        return future

    def close(self):
        """Says goodbye and closes the connection. Open calls fail."""
        if self._lost is None:
            for number in list(self._futures):
                self._stop_sending(number)
            self._send(GOODBYE, 0)
            try:
                self._drive(lambda: not (self._outbox or self._writing), 1.0)
            except (TeleportError, TimeoutError):
                pass  # the connection closes anyway
            self._lose(ConnectionLost("closed by this client"))

    # Out

    def _send(self, kind, number, body=b"", flags=0, argument=0, payload=b""):
        self._outbox.append(frame(kind, number, body, flags, argument, payload))

    def _send_call(self, number, metadata, message):
        eager = 0 < message.memory <= self._credit
        if eager:
            self._credit -= message.memory
        if eager and sum(view.nbytes for view in message.payload) <= MAX_INLINE_BYTES:
            payload = b"".join(message.payload)
            checked = self._sends_checksums()
            flags = EAGER | INLINE | (CHECKED if checked else 0)
            self._send(CALL, number, metadata, flags, crc32c(payload) if checked else 0, payload)
            return
        self._send(CALL, number, metadata, EAGER if eager else 0)
        if eager:
            self._begin(number, message)
        elif message.memory:
            self._waiting[number] = message

    def _sends_checksums(self):
        return self._checksum or bool(self.server["features"] & WANTS_CHECKSUMS)

    def _begin(self, number, message):
        unsent = sum(view.nbytes for view in message.payload)
        self._transfers.append((number, unsent, self._data_frames(number, message)))

    def _data_frames(self, number, message):
        checksum = self._sends_checksums()
        for views in chunks(message.payload):
            length = sum(view.nbytes for view in views)
            crc = crc32c(b"".join(views)) if checksum else 0
            yield [memoryview(header(DATA, CHECKSUM if checksum else 0, number, length, crc)), *views]

    def _cancel(self, number):
        if self._stop_sending(number):
            error = RemoteError("cancelled", "no", "", "withdrawn before it was sent whole", "")
            self._end(number, error=error)
        else:
            self._send(CANCEL, number)

    def _stop_sending(self, number):
        """Aborts a call if some of its payload is unsent. A partly sent frame is finished first."""
        waiting = self._waiting.pop(number, None)
        sending = [transfer for transfer in self._transfers if transfer[0] == number]
        for transfer in sending:
            self._transfers.remove(transfer)
        if waiting or sending:
            self._send(ABORT, number)
        return bool(waiting or sending)

    def _next_frame(self):
        """Returns control frames and metadata first, and then a chunk of each transfer in turn."""
        if self._outbox:
            return [self._outbox.popleft()]
        if not self._transfers:
            return None
        number, unsent, frames = self._transfers.popleft()
        head, *views = next(frames)
        unsent -= sum(view.nbytes for view in views)
        # A transfer is listed only while it has unsent bytes, since only then an ABORT is allowed.
        if unsent:
            self._transfers.append((number, unsent, frames))
        return [head, *views]

    def _write(self):
        while True:
            if not self._writing:
                views = self._next_frame()
                if views is None:
                    return
                self._writing.extend(views)
            try:
                sent = self._socket.sendmsg(list(itertools.islice(self._writing, 64)))
            except BlockingIOError:
                return
            while sent:
                view = self._writing.popleft()
                if view.nbytes > sent:
                    self._writing.appendleft(view[sent:])
                sent -= min(sent, view.nbytes)

    # In

    def _read(self):
        """Reads until the socket is empty, but at most a few chunks, so that writing gets its turn."""
        for _ in range(8):
            try:
                count = self._socket.recv_into(self._want)
            except BlockingIOError:
                return
            if count == 0:
                raise ConnectionLost("the server closed the connection without a goodbye")
            self._heard, self._pinged = time.monotonic(), False
            self._want = self._want[count:]
            if not self._want.nbytes:
                self._want = next(self._parser)

    def _frames(self):
        """Yields the memory for the next bytes, continues once it is filled, and handles each frame."""
        start = bytearray(16)
        for index in range(16):
            yield memoryview(start)[index : index + 1]
            check_preface(start[: index + 1])
        while True:
            head = bytearray(32)
            yield memoryview(head)
            kind, flags, crc, number, length, argument = check_header(head)
            if (self.server is None) != (kind == HELLO) and kind != GOODBYE:
                raise ProtocolError(f"a frame of kind {kind}, but hello must come first and only once")
            if kind == DATA:
                yield from self._data(flags, crc, number, length)
                continue
            body = bytearray(length)
            if length:
                yield memoryview(body)
            if kind & SKIPPABLE:
                continue
            body, payload = split_result(flags, body) if kind == RESULT else (body, b"")
            if crc32c(body) != crc:
                raise ProtocolError(f"a frame of kind {kind} with a wrong body checksum")
            if kind == RESULT:
                self._on_result(flags, number, argument, bytes(body), payload)
            else:
                self._act(kind, number, argument, bytes(body))

    def _data(self, flags, crc, number, length):
        message = self._incoming.get(number)
        if message is None:
            raise ProtocolError(f"a chunk for call {number}, which receives no result")
        views = message.memory_for(length)
        yield from views
        if flags & CHECKSUM and crc32c(b"".join(views)) != crc:
            message.damaged = True
        if message.missing == 0:
            self._complete(number)

    def _act(self, kind, number, argument, body):
        if kind == HELLO:
            self.server = decode_hello(body)
            self._credit = self.server["eager_credit_bytes"]
        elif kind == ERROR:
            self._on_error(number, decode_error(body))
        elif kind == ABORT:
            self._give_back(self._incoming.pop(number, None))
        elif kind == CREDIT:
            self._credit += number
            if self._credit > self.server["eager_credit_bytes"]:
                raise ProtocolError(f"{number} bytes of credit given back, more than were taken")
        elif kind == GRANT:
            self._on_grant(struct.unpack(f"<{len(body) // 8}Q", body))
        elif kind == PING:
            # Sent before all frames that have not begun.
            self._outbox.appendleft(frame(PONG, number))
        elif kind == GOODBYE:
            reason = ERROR_KINDS.get(argument, f"kind {argument}") if argument else "a plain end"
            text = body.decode(errors="replace")
            raise ConnectionLost(f"the server said goodbye: {reason}" + (f" ({text})" if text else ""))

    def _on_result(self, flags, number, argument, body, payload):
        if number not in self._futures or number in self._incoming:
            raise ProtocolError(f"a result for call {number}, which is not open or has one already")
        reader = Reader(body)
        signature_bytes, order_bytes = reader.numbers("<II")
        message = Incoming(reader.take(signature_bytes), reader.take(order_bytes), bool(flags & EAGER))
        reader.end()
        if message.eager and not message.memory:
            raise ProtocolError("an eager result without payload")
        self._incoming[number] = message
        if flags & INLINE:
            if len(payload) != message.missing:
                raise ProtocolError(f"{len(payload)} bytes of inline payload, {message.missing} announced")
            message.damaged = bool(flags & CHECKED) and crc32c(payload) != argument
            for view in message.memory_for(len(payload)):
                view[:], payload = payload[: view.nbytes], payload[view.nbytes :]
        if not message.missing:
            self._complete(number)
        elif not message.eager:
            self._send(GRANT, 0, struct.pack("<Q", number))

    def _on_error(self, number, error):
        if number in self._futures:
            if number in self._incoming:
                raise ProtocolError(f"an error for call {number} in the middle of its result")
            self._stop_sending(number)
            self._end(number, error=error)
        elif not 1 <= number <= self._last_id:
            raise ProtocolError(f"an answer to call {number}, which was never made")
        # Otherwise the answer crossed with our ABORT.

    def _on_grant(self, numbers):
        for number in numbers:
            if not 1 <= number <= self._last_id:
                raise ProtocolError(f"a grant for call {number}, which was never made")
            message = self._waiting.pop(number, None)
            if message is not None:
                self._begin(number, message)

    def _complete(self, number):
        message = self._incoming.pop(number)
        self._give_back(message)
        try:
            if message.damaged:
                raise BadContents("the checksum of the result is wrong")
            tree = message.tree()
        except BadContents as error:
            self._end(number, error=error)
        else:
            self._end(number, tree=tree)

    def _give_back(self, message):
        if message is not None and message.eager:
            self._send(CREDIT, message.memory)

    def _end(self, number, tree=None, error=None):
        self._futures.pop(number)._outcome = (tree, error)

    # The loop

    def _drive(self, ready, timeout):
        """Reads and writes until `ready()`."""
        start = time.monotonic()
        # The client did not read until now, so silence counts from now.
        self._heard = start
        while not ready():
            left = PING_S if timeout is None else start + timeout - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no reply within {timeout} s")
            self._step(min(left, PING_S))

    def _step(self, timeout):
        if self._lost is not None:
            raise self._lost
        try:
            self._keep_alive()
            self._write()
            busy = [self._socket] if self._writing else []
            readable, writable, _ = select.select([self._socket], busy, [], timeout)
            if readable:
                self._read()
            if readable or writable:
                self._write()
        except ProtocolError as error:
            if not isinstance(error, NotTeleport):
                self._say_goodbye(PROTOCOL, str(error))
            self._lose(error)
        except ConnectionLost as error:
            self._say_goodbye(0, "")
            self._lose(error)
        except OSError as error:
            self._lose(ConnectionLost(str(error)))
        if self._lost is not None and self.server is None:
            raise self._lost

    def _keep_alive(self):
        silent = time.monotonic() - self._heard
        if silent > MAX_SILENCE_S:
            raise ConnectionLost(f"the server has been silent for {silent:.0f} s")
        if silent >= PING_S and self.server is not None and not self._pinged:
            self._pinged = True
            self._send(PING, 0)

    def _say_goodbye(self, argument, text):
        """Sends a goodbye with the reason, unless a partly sent frame or a full socket prevents it."""
        if not self._writing:
            try:
                self._socket.send(frame(GOODBYE, 0, text.encode()[:512], argument=argument))
            except OSError:
                pass  # the server has closed already

    def _lose(self, error):
        self._lost = error
        self._socket.close()
        for number in list(self._futures):
            self._end(number, error=error)


def dial(address, timeout):
    """Returns a connected socket. Tries again until the server answers or the time is over."""
    end = time.monotonic() + timeout
    while True:
        try:
            return dial_once(address, max(0.1, end - time.monotonic()))
        except (ConnectionRefusedError, FileNotFoundError) as error:
            if time.monotonic() >= end:
                raise ConnectionLost(f"no server at {address}: {error}") from None
            time.sleep(0.05)


def dial_once(address, timeout):
    if address.startswith("ipc://"):
        path = address[len("ipc://") :]
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect("\0" + path[1:] if path.startswith("@") else path)
        return connection
    match = re.fullmatch(r"tcp://(?:\[([^\]]+)\]|([^:\[\]]+)):(\d+)", address)
    if not match:
        raise ValueError(f"{address!r} is neither tcp://host:port, ipc:///path nor ipc://@name")
    connection = socket.create_connection((match[1] or match[2], int(match[3])), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    import self_test

    self_test.main()
