"""Teleport's wire format in Python, which encodes and decodes frames and trees.

This module is written from `FORMAT.md` alone. `Outgoing` splits a tree into metadata and views of its
arrays' memory. `Incoming` allocates memory for the payload from a message's metadata and makes a tree of it.
The module uses no socket, and checks sizes from a peer before it allocates memory for them.
"""

import collections
import os
import struct

import numpy as np

# --- Checksum -----------------------------------------------------------------------------------------


def _crc_table():
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


CRC_TABLE = _crc_table()
_CRC_LIST = [int(value) for value in CRC_TABLE]
_CRC_LANE_BYTES = 1024


def crc32c_plain(data, state=0xFFFFFFFF):
    """Returns the state of a CRC-32C after `data`, byte by byte. The checksum is its complement."""
    for byte in bytes(data):
        state = _CRC_LIST[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


def _crc_lanes(lanes, state):
    """Updates the state of each row with its bytes, for all rows at once."""
    for column in lanes.T:
        state = CRC_TABLE[(state ^ column) & 0xFF] ^ (state >> 8)
    return state


def _lane_shift():
    """Returns the states that follow from each single bit after a lane of zero bytes. XOR combines them."""
    zeros = np.zeros((32, _CRC_LANE_BYTES), np.uint8)
    return [int(value) for value in _crc_lanes(zeros, np.uint32(1) << np.arange(32, dtype=np.uint32))]


_LANE_SHIFT = _lane_shift()


def crc32c(data):
    """Returns the CRC-32C (Castagnoli). Long input is cut into lanes that NumPy computes side by side."""
    data = np.frombuffer(data, np.uint8)
    state = 0xFFFFFFFF
    count = data.size // _CRC_LANE_BYTES
    if count >= 8:
        lanes = data[: count * _CRC_LANE_BYTES].reshape(count, _CRC_LANE_BYTES)
        for lane in _crc_lanes(lanes, np.zeros(count, np.uint32)):
            shifted = 0
            for bit, value in enumerate(_LANE_SHIFT):
                if state >> bit & 1:
                    shifted ^= value
            state = shifted ^ int(lane)
        data = data[count * _CRC_LANE_BYTES :]
    return crc32c_plain(data, state) ^ 0xFFFFFFFF


# --- Numbers of the format ----------------------------------------------------------------------------

MAGIC = bytes.fromhex("89 54 4C 50 0D 0A 1A 0A")
VERSION = 1
HEADER = struct.Struct("<BBHIQQII")
HELLO_FIXED = struct.Struct("<QQQIIII16s16sHHI")
CALL_FIXED = struct.Struct("<HHIIIQ")

HELLO, CALL, RESULT, ERROR, DATA, ABORT, CREDIT, GRANT, ACK, CANCEL, PING, PONG = range(1, 13)
GOODBYE = 17
SKIPPABLE = 0x80

EAGER, INLINE, CHECKED = 0x01, 0x02, 0x04  # of CALL and RESULT
HEAD_FLAGS = (0, EAGER, EAGER | INLINE, EAGER | INLINE | CHECKED)
CHECKSUM = 0x01  # of DATA
WANTS_CHECKSUMS = 0x04  # a feature

PROTOCOL = 11  # an error kind
ERROR_KINDS = {
    1: "unknown_method", 2: "bad_arguments", 3: "failed", 4: "panicked", 5: "closing", 6: "overloaded",
    7: "deadline", 8: "cancelled", 9: "too_slow", 10: "too_large", 11: "protocol", 12: "expired",
    13: "checksum", 14: "unauthorized", 15: "internal",
}  # fmt: skip
RAN = ("no", "maybe", "yes")

NULL, ARRAY, STRING, BYTES, LIST, DICT = range(6)  # tags of a signature

MAX_CHUNK_BYTES = 1 << 20
MAX_INLINE_BYTES = 16 << 10
MAX_RANK = 32
MAX_METHOD_BYTES = 256
MAX_NAME_BYTES = 256
MAX_ERROR_BYTES = 16 + 256 + (16 << 10) + (32 << 10)
MAX_HELLO_BYTES = HELLO_FIXED.size + MAX_NAME_BYTES + 4096

# The limits of this side, as stated in its hello.
MAX_MESSAGE_BYTES = 1 << 34
MAX_METADATA_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 65536
EAGER_CREDIT_BYTES = 1 << 20

# Frames that a server may send: flags, id (0, 1 for nonzero, None for any), and the bytes of the body.
SERVER_FRAMES = {
    HELLO: (0, 0, range(HELLO_FIXED.size, MAX_HELLO_BYTES + 1)),
    RESULT: (EAGER | INLINE | CHECKED, 1, range(9, MAX_METADATA_BYTES + MAX_INLINE_BYTES + 1)),
    ERROR: (0, 1, range(16, MAX_ERROR_BYTES + 1)),
    DATA: (CHECKSUM, 1, range(1, MAX_CHUNK_BYTES + 1)),
    ABORT: (0, 1, range(1)),
    CREDIT: (0, 1, range(1)),
    GRANT: (0, 0, range(8, 8 * 1024 + 1, 8)),
    PING: (0, None, range(1)),
    PONG: (0, None, range(1)),
    GOODBYE: (0, 0, range(1025)),
}

# --- Errors -------------------------------------------------------------------------------------------


class TeleportError(Exception):
    """A failure of a call or of the connection."""


class ProtocolError(TeleportError):
    """The server broke the protocol, which ends the connection."""


class NotTeleport(ProtocolError):
    """The peer does not speak this version of Teleport."""


class ConnectionLost(TeleportError):
    """The connection ended. An open call may have run."""


class TooLarge(TeleportError):
    """A message exceeds a limit of the server. Nothing was sent."""


class BadContents(TeleportError):
    """The payload of a result does not fit its signature or its checksum."""


class RemoteError(TeleportError):
    """The server answered with an error: `kind`, `ran`, `code`, `message`, `backtrace`."""

    def __init__(self, kind, ran, code, message, backtrace):
        super().__init__(f"{kind} (ran: {ran}): {message}" + (f" [{code}]" if code else ""))
        self.kind, self.ran, self.code, self.message, self.backtrace = kind, ran, code, message, backtrace


# --- dtypes -------------------------------------------------------------------------------------------


class BFloat16(np.ndarray):
    """An array of bf16, which NumPy lacks. It holds the 16 bits of each value as uint16."""

    def __new__(cls, bits):
        return np.asarray(bits, np.uint16).view(cls)


BF16 = 11
PLAIN = {
    1: "|b1", 2: "|i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "|u1", 7: "<u2", 8: "<u4", 9: "<u8", 10: "<f2",
    BF16: "<u2", 12: "<f4", 13: "<f8", 14: "<c8", 15: "<c16",
}  # fmt: skip
PLAIN_CODES = {name: code for code, name in PLAIN.items() if code != BF16}
FIXED_BYTES, FIXED_TEXT, DATETIME, TIMEDELTA = 16, 17, 18, 19
TIME_BASES = ("generic", "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")


def encode_dtype(array):
    """Returns the code of an array's dtype and its parameters."""
    dtype = array.dtype.newbyteorder("<")
    if isinstance(array, BFloat16) or dtype.name == "bfloat16":
        return BF16, b""
    if dtype.str in PLAIN_CODES:
        return PLAIN_CODES[dtype.str], b""
    if dtype.kind == "S":
        return FIXED_BYTES, struct.pack("<I", dtype.itemsize)
    if dtype.kind == "U":
        return FIXED_TEXT, struct.pack("<I", dtype.itemsize // 4)
    if dtype.kind in "Mm":
        base, multiple = np.datetime_data(dtype)
        code = DATETIME if dtype.kind == "M" else TIMEDELTA
        return code, struct.pack("<BI", TIME_BASES.index(base), multiple)
    raise TypeError(f"the format has no dtype {dtype}; convert the array first")


def decode_dtype(code, reader):
    """Returns the NumPy dtype of a code. Reads the parameters if the code has any."""
    if code in PLAIN:
        return np.dtype(PLAIN[code])
    if code in (FIXED_BYTES, FIXED_TEXT):
        width = reader.number("<I")
        if width > np.iinfo(np.int32).max // 4:
            raise ProtocolError(f"items of width {width}, which NumPy does not support")
        return np.dtype(f"S{width}" if code == FIXED_BYTES else f"<U{width}")
    if code in (DATETIME, TIMEDELTA):
        base, multiple = reader.numbers("<BI")
        if base >= len(TIME_BASES) or not 1 <= multiple < 1 << 31 or (base == 0 and multiple != 1):
            raise ProtocolError(f"a time unit with base {base} and multiple {multiple}")
        unit = f"[{multiple}{TIME_BASES[base]}]" if base else ""
        return np.dtype(f"<{'M' if code == DATETIME else 'm'}8{unit}")
    raise ProtocolError(f"dtype {code} in a signature")


def check_values(array):
    """Rejects bytes that are no valid value of a bool or text dtype."""
    bits = array.reshape(-1)
    if array.dtype.kind == "b" and (bits.view(np.uint8) > 1).any():
        raise BadContents("a bool that is neither 0 nor 1")
    if array.dtype.kind == "U" and bits.nbytes:
        points = bits.view("<u4")
        if ((points > 0x10FFFF) | (points >> 11 == 0xD800 >> 11)).any():
            raise BadContents("a code point that does not exist")


def area(shape, item_bytes):
    """Returns the bytes that count against the limit of a message. Sizes of 0 count as 1."""
    product = max(item_bytes, 1)
    for size in shape:
        product *= max(size, 1)
    return product


def memory_bytes(sizes):
    """Returns the memory of a message with leaves of these sizes. Each starts at a multiple of 64 bytes."""
    end = 0
    for size in sizes:
        if size:
            end = (end + 63) // 64 * 64 + size
    return end


# --- Sending: a tree to metadata and payload ----------------------------------------------------------


class Outgoing:
    """A tree as `signature`, `order` and `payload`, which holds views of the memory of all leaves with bytes.

    `limits` is the peer's hello. A tree that exceeds them raises `TooLarge` here, before anything is sent.
    """

    def __init__(self, tree, limits):
        self._limits, self._nodes = limits, 0
        self._signature, self._orders, self.payload = bytearray(), [], []
        self._node(tree, 0)
        self.signature = bytes(self._signature)
        if all(order == sorted(order) for order in self._orders):
            self.order = b""
        else:
            self.order = b"".join(struct.pack(f"<{len(order)}I", *order) for order in self._orders)
        self.memory = memory_bytes(view.nbytes for view in self.payload)
        self._check("max_message_bytes", self.memory)

    def _check(self, limit, value):
        if value > self._limits[limit]:
            raise TooLarge(f"{value} exceeds the server's {limit} of {self._limits[limit]}")

    def _node(self, tree, around):
        self._nodes += 1
        self._check("max_nodes", self._nodes)
        self._check("max_depth", around)
        if isinstance(tree, dict):
            self._dict(tree, around)
        elif isinstance(tree, (list, tuple)):
            self._signature += struct.pack("<BI", LIST, len(tree))
            for child in tree:
                self._node(child, around + 1)
        elif tree is None:
            self._signature.append(NULL)
        elif isinstance(tree, str):
            self._flat(STRING, tree.encode())
        elif isinstance(tree, (bytes, bytearray, memoryview)):
            self._flat(BYTES, tree)
        else:
            self._array(np.asanyarray(tree))

    def _dict(self, tree, around):
        self._signature += struct.pack("<BI", DICT, len(tree))
        # Code points have the same order as their UTF-8 bytes.
        keys = sorted(tree)
        if len(keys) >= 2:
            places = {key: index for index, key in enumerate(keys)}
            self._orders.append([places[key] for key in tree])
        for key in keys:
            encoded = key.encode()
            self._signature += struct.pack("<I", len(encoded)) + encoded
            self._node(tree[key], around + 1)

    def _flat(self, tag, data):
        view = memoryview(data).cast("B")
        self._signature += struct.pack("<BQ", tag, view.nbytes)
        self._add(view)

    def _array(self, array):
        code, parameters = encode_dtype(array)
        self._check("max_message_bytes", area(array.shape, array.itemsize))
        self._signature += struct.pack("<BBB", ARRAY, code, array.ndim) + parameters
        self._signature += struct.pack(f"<{array.ndim}Q", *array.shape)
        if array.nbytes:
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            self._add(memoryview(little.reshape(-1).view(np.uint8)))

    def _add(self, view):
        if view.nbytes:
            self.payload.append(view)


def chunks(payload):
    """Splits the payload into chunks, each a list of views."""
    chunk, room = [], MAX_CHUNK_BYTES
    for view in payload:
        while view.nbytes:
            piece, view = view[:room], view[room:]
            chunk.append(piece)
            room -= piece.nbytes
            if room == 0:
                yield chunk
                chunk, room = [], MAX_CHUNK_BYTES
    if chunk:
        yield chunk


# --- Receiving: metadata to memory to a tree ----------------------------------------------------------


class Reader:
    """Reads numbers and bytes from the front of a frame's body and never past its end."""

    def __init__(self, data):
        self._data, self._at = memoryview(data), 0

    def left(self):
        return len(self._data) - self._at

    def take(self, count):
        if count > self.left():
            raise ProtocolError(f"{count} bytes are expected, but {self.left()} are left")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def number(self, layout):
        return self.numbers(layout)[0]

    def numbers(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self, count):
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"text that is not UTF-8: {error}") from None

    def end(self):
        if self.left():
            raise ProtocolError(f"{self.left()} bytes are left over")


class Incoming:
    """A message whose metadata has arrived. Allocates the leaves, receives payload, and returns the tree."""

    def __init__(self, signature, order, eager):
        self._reader, self._orders, self._nodes = Reader(signature), [], 0
        self._sizes, self._makers = [], []
        self._finish = self._node(0)
        self._reader.end()
        self._reorder(order)
        self.eager, self.damaged = eager, False
        self.memory, self.missing = memory_bytes(self._sizes), sum(self._sizes)
        if self.memory > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"a message of {self.memory} bytes, past the limit of {MAX_MESSAGE_BYTES}")
        # Memory is allocated only after all sizes are checked.
        self._leaves = [make() for make in self._makers]
        self._views = collections.deque(view for _, view in self._leaves if view is not None)

    def _node(self, around):
        """Reads one node and returns a function that returns its value once the payload has arrived."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ProtocolError(f"a tree with more than {MAX_NODES} nodes")
        if around > MAX_DEPTH:
            raise ProtocolError(f"a tree deeper than {MAX_DEPTH}")
        tag = self._reader.number("<B")
        if tag == NULL:
            return lambda: None
        if tag == LIST:
            children = [self._node(around + 1) for _ in range(self._count(1))]
            return lambda: [child() for child in children]
        if tag == DICT:
            return self._dict(around)
        if tag == ARRAY:
            return self._array()
        if tag in (STRING, BYTES):
            return self._flat(tag)
        raise ProtocolError(f"tag {tag} in a signature")

    def _count(self, min_bytes_each):
        count = self._reader.number("<I")
        if count * min_bytes_each > self._reader.left():
            raise ProtocolError(f"{count} children in {self._reader.left()} bytes")
        return count

    def _dict(self, around):
        count = self._count(5)
        keys, children, order = [], [], list(range(count))
        if count >= 2:
            self._orders.append(order)
        for _ in range(count):
            key = self._reader.text(self._reader.number("<I"))
            if keys and keys[-1] >= key:
                raise ProtocolError(f"the key {key!r} is out of order")
            keys.append(key)
            children.append(self._node(around + 1))
        return lambda: {keys[index]: children[index]() for index in order}

    def _reorder(self, data):
        """Reads the order of each dict's keys. Without one, the keys are sorted."""
        if not data:
            return
        reader, changed = Reader(data), False
        for order in self._orders:
            written = list(reader.numbers(f"<{len(order)}I"))
            if sorted(written) != order:
                raise ProtocolError(f"{written} is no order of {len(order)} keys")
            changed |= written != order
            order[:] = written
        reader.end()
        if not changed:
            raise ProtocolError("an order that is the sorted one, which must be left out")

    def _array(self):
        code, rank = self._reader.numbers("<BB")
        if rank > MAX_RANK:
            raise ProtocolError(f"an array of rank {rank}")
        dtype = decode_dtype(code, self._reader)
        shape = self._reader.numbers(f"<{rank}Q")
        if area(shape, dtype.itemsize) > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"an array of shape {shape}, past the limit of {MAX_MESSAGE_BYTES} bytes")

        def make():
            # `np.empty` would widen items of zero bytes.
            array = np.ndarray(shape, dtype)
            return array, memoryview(array.reshape(-1).view(np.uint8)) if array.nbytes else None

        def finish(array):
            check_values(array)
            return array.view(BFloat16) if code == BF16 else array

        size = 0 if 0 in shape else area(shape, 1) * dtype.itemsize
        return self._leaf(size, make, finish)

    def _flat(self, tag):
        count = self._reader.number("<Q")
        if count > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"{count} bytes, past the limit of {MAX_MESSAGE_BYTES}")

        def make():
            data = np.empty(count, np.uint8)
            return data, memoryview(data) if count else None

        return self._leaf(count, make, lambda data: str(data, "utf-8") if tag == STRING else data.tobytes())

    def _leaf(self, size, make, finish):
        index = len(self._makers)
        self._sizes.append(size)
        self._makers.append(make)
        return lambda: finish(self._leaves[index][0])

    def memory_for(self, count):
        """Returns views of the memory for the next `count` bytes of payload."""
        if count > self.missing:
            raise ProtocolError(f"a chunk of {count} bytes, but only {self.missing} are missing")
        self.missing -= count
        found = []
        while count:
            view = self._views.popleft()
            found.append(view[:count])
            if view.nbytes > count:
                self._views.appendleft(view[count:])
            count -= found[-1].nbytes
        return found

    def tree(self):
        try:
            return self._finish()
        except UnicodeDecodeError as error:
            raise BadContents(f"a string that is not UTF-8: {error}") from None


# --- Frames -------------------------------------------------------------------------------------------


def split_result(flags, body):
    """Returns the metadata of a RESULT and its inline payload, which is empty without INLINE."""
    inline = bool(flags & INLINE)
    count = 8 + sum(struct.unpack_from("<II", body)) if inline else len(body)
    payload = body[count:]
    if count > MAX_METADATA_BYTES or bool(payload) != inline or len(payload) > MAX_INLINE_BYTES:
        raise ProtocolError(f"{count} bytes of metadata and {len(payload)} of inline payload")
    return body[:count], payload


def header(kind, flags, number, length, crc, argument=0):
    head = HEADER.pack(kind, flags, 0, crc, number, length, argument, 0)[:28]
    return head + struct.pack("<I", crc32c(head))


def frame(kind, number, body=b"", flags=0, argument=0, payload=b""):
    """Returns a frame with this body, behind which an inline payload may follow."""
    head = header(kind, flags, number, len(body) + len(payload), crc32c(body), argument)
    return memoryview(head + body + payload)


def preface():
    data = MAGIC + struct.pack("<HH", VERSION, 0)
    return data + struct.pack("<I", crc32c(data))


def check_preface(data):
    """Rejects another protocol or version. Accepts a partial preface, to detect a wrong peer at once."""
    if not preface().startswith(bytes(data)):
        raise NotTeleport(f"the server does not speak Teleport {VERSION}; it began with {bytes(data)!r}")


def check_header(data):
    """Checks a header from a server. Returns its kind, flags, body checksum, id, length and argument."""
    kind, flags, reserved, crc, number, length, argument, header_crc = HEADER.unpack(data)
    if crc32c(data[:28]) != header_crc:
        raise ProtocolError(f"a header with a wrong checksum: {data.hex()}")
    if kind not in SERVER_FRAMES and kind & SKIPPABLE:
        allowed = reserved == 0 and length <= MAX_METADATA_BYTES
    elif kind in SERVER_FRAMES:
        may_flags, id_rule, lengths = SERVER_FRAMES[kind]
        allowed = not flags & ~may_flags and reserved == 0 and length in lengths
        allowed &= id_rule is None or bool(number) == bool(id_rule)
        allowed &= argument == 0 or kind == GOODBYE or (kind == RESULT and bool(flags & CHECKED))
        allowed &= kind != RESULT or flags in HEAD_FLAGS
        allowed &= crc == 0 or (length > 0 and (kind != DATA or bool(flags & CHECKSUM)))
    else:
        allowed = False
    if not allowed:
        raise ProtocolError(f"a header that a server must not send: {data.hex()}")
    return kind, flags, crc, number, length, argument


def decode_error(body):
    reader = Reader(body)
    kind, ran, reserved, *lengths = reader.numbers("<HBBIII")
    if kind == 0 or ran >= len(RAN) or reserved or any(map(int.__gt__, lengths, (256, 16 << 10, 32 << 10))):
        raise ProtocolError(f"an invalid error: {body[:16].hex()}")
    texts = [reader.text(count) for count in lengths]
    reader.end()
    return RemoteError(ERROR_KINDS.get(kind, f"kind {kind}"), RAN[ran], *texts)


HELLO_NAMES = (
    "features", "max_message_bytes", "eager_credit_bytes", "max_metadata_bytes", "max_open_calls",
    "max_depth", "max_nodes", "instance", "session",
)  # fmt: skip


def encode_hello(name, features):
    """Returns a client's hello, with the limits above, a new instance and no session."""
    encoded = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").encode()
    return HELLO_FIXED.pack(
        features, MAX_MESSAGE_BYTES, EAGER_CREDIT_BYTES, MAX_METADATA_BYTES, 0, MAX_DEPTH, MAX_NODES,
        os.urandom(16), bytes(16), len(encoded), 0, 0,
    ) + encoded  # fmt: skip


def decode_hello(body):
    """Returns the server's hello as a dict. Its limits apply to `Outgoing` and the client."""
    reader = Reader(body)
    *values, name_bytes, auth_bytes, reserved = reader.numbers(HELLO_FIXED.format)
    if reserved or name_bytes > MAX_NAME_BYTES or auth_bytes > 4096:
        raise ProtocolError("an invalid hello")
    hello = dict(zip(HELLO_NAMES, values))
    hello["max_depth"] = min(hello["max_depth"], 256)
    hello["name"], hello["auth"] = reader.text(name_bytes), reader.take(auth_bytes)
    reader.end()
    return hello
