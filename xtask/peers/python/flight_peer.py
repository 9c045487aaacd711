"""Arrow Flight: one `do_exchange` stream of record batches for all calls of a kind.

Flow: a call is one batch. Above MAX_BATCH_BYTES it is several, whose metadata say that more follow. Answers have the same
form. Both sides send their memory without a copy. The receiver keeps the batches, as Arrow does with large columns. A dict
is a batch with a column for each array. A large call beside small ones has its own stream on the same connection.
"""

import os
import sys
import threading

import pyarrow as pa
import pyarrow.flight as flight

import rounds

# The largest batch. Pieces were measured to be faster, because both sides work at the same time.
MAX_BATCH_BYTES = 4 << 20

MORE = b'more'

ARRAY = pa.schema([('array', pa.uint8())])
DICT = pa.schema([(f'array_{index:02}', pa.uint8()) for index in range(rounds.DICT_ARRAYS)])

# The pool of pyarrow that is fastest for large results, set to keep its memory.
pa.set_memory_pool(pa.jemalloc_memory_pool())
pa.jemalloc_set_decay_ms(-1)

SETTINGS = (
    f'pyarrow {pa.__version__}, memory pool jemalloc without decay; one do_exchange stream for the calls of a round, '
    'batches of at most 4 MiB, message sizes unlimited; every stream is answered by a thread of gRPC'
)

METHODS = {
    'sink': 'sink', 'dict': 'sink', 'beside_argument': 'sink', 'source': 'source', 'beside_result': 'source',
    'echo': 'echo', 'pool': 'echo',
}


class Server(flight.FlightServerBase):
    """Answers each stream by the method that its descriptor names."""

    def do_exchange(self, context, descriptor, reader, writer):
        method = descriptor.command.decode()
        writer.begin(ARRAY)
        nothing = batches(0)
        for argument in arguments(reader):
            if method == 'sink':
                del argument
                write(writer, nothing)
            elif method == 'source':
                write(writer, batches(int.from_bytes(argument[0].column(0).buffers()[1].to_pybytes()[:8], 'little')))
            else:
                write(writer, argument)


def arguments(reader):
    """Yields the batches of each call."""
    try:
        while True:
            yield read(reader)
    except StopIteration:
        return


def read(reader):
    parts = []
    while True:
        chunk = reader.read_chunk()
        parts.append(chunk.data)
        if chunk.app_metadata is None:
            return parts


def write(writer, parts):
    for part in parts[:-1]:
        writer.write_with_metadata(part, MORE)
    writer.write_batch(parts[-1])


def batches(size):
    """Returns batches of uninitialized memory."""
    return split(pa.allocate_buffer(size), size)


def split(memory, size):
    pieces = range(0, max(size, 1), MAX_BATCH_BYTES)
    return [batch(memory.slice(at, min(MAX_BATCH_BYTES, size - at))) for at in pieces]


def batch(memory):
    return pa.record_batch([column(memory)], schema=ARRAY)


def column(memory):
    return pa.Array.from_buffers(pa.uint8(), memory.size, [None, memory])


def serve(address):
    if address.startswith('tcp://'):
        server = Server(f'grpc+{address}')
        place = f'tcp://{address.removeprefix("tcp://").rsplit(":", 1)[0]}:{server.port}'
    else:
        # Flight has no abstract sockets. The folder of the environment is build output.
        path = os.path.join(sys.prefix, address.removeprefix('ipc://@'))
        server, place = Server(f'grpc+unix://{path}'), f'unix://{path}'
    threading.Thread(target=server.serve, daemon=True).start()
    return place


def connect(address):
    options = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)]
    client = flight.FlightClient(f'grpc+{address}', generic_options=options)
    client.wait_for_available(timeout=10)
    kept = {}

    def stream(workload, size):
        kind = (workload, size)
        if kind not in kept:
            for old in kept.values():
                old.close()
            kept.clear()
            kept[kind] = Stream(client, workload, size)
        return kept[kind]

    def run(round):
        calls = stream(round.workload, round.bytes)
        if round.workload.startswith('beside'):
            small = Stream(client, 'echo', rounds.SMALL_BYTES)
            try:
                return rounds.beside(round, calls.call, small.call)
            finally:
                small.close()
        return rounds.exchange(round, calls.send, calls.wait)

    return SETTINGS, run


class Stream:
    """Calls of one method with one argument."""

    def __init__(self, client, workload, size):
        descriptor = flight.FlightDescriptor.for_command(METHODS[workload])
        self.writer, self.reader = client.do_exchange(descriptor)
        self.argument = argument(workload, size)
        self.writer.begin(self.argument[0].schema)

    def send(self):
        write(self.writer, self.argument)

    def wait(self, _):
        return sum(part.num_rows for part in read(self.reader))

    def call(self):
        return self.wait(self.send())

    def close(self):
        self.writer.done_writing()
        self.writer.close()


def argument(workload, size):
    ones = lambda size: pa.py_buffer(b'\1' * size)
    if METHODS[workload] == 'source':
        return [batch(pa.py_buffer(size.to_bytes(8, 'little')))]
    if workload == 'dict':
        columns = [column(ones(size // rounds.DICT_ARRAYS)) for _ in range(rounds.DICT_ARRAYS)]
        return [pa.record_batch(columns, schema=DICT)]
    return split(ones(size), size)


if __name__ == '__main__':
    rounds.main(serve, connect)
