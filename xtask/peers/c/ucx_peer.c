// UCX with tag matching over TCP: each side asks its worker for progress in a loop and never sleeps.
//
// Flow: `ucx_peer serve ADDRESS` sends each message back; `ucx_peer client ADDRESS` measures the rounds that
// it reads, as `xtask/src/bench/protocol.rs` describes. It knows one workload: an echo, one call at a time.
// One client is served. A thread of the server waits for the end of standard input.

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

// A round with more calls reports no single times.
#define MAX_LATENCIES 20000

// The largest message.
#define MAX_BYTES (1 << 20)

#define ANY_TAG 0

static char buffer[MAX_BYTES];
static uint64_t latencies[MAX_LATENCIES];

// The request of a client to connect, until the server has answered it.
static ucp_conn_request_h asking;

static void fail(const char *what, ucs_status_t status) {
    fprintf(stderr, "ucx: %s: %s\n", what, ucs_status_string(status));
    exit(1);
}

static void check(const char *what, ucs_status_t status) {
    if (status != UCS_OK) {
        fail(what, status);
    }
}

// Makes a worker for TCP and this thread alone.
static ucp_worker_h make_worker(void) {
    ucp_config_t *config;
    check("ucp_config_read", ucp_config_read(NULL, NULL, &config));
    check("TLS", ucp_config_modify(config, "TLS", "tcp"));
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG};
    ucp_context_h context;
    check("ucp_init", ucp_init(&params, config, &context));
    ucp_config_release(config);
    ucp_worker_params_t worker_params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
        .thread_mode = UCS_THREAD_MODE_SINGLE,
    };
    ucp_worker_h worker;
    check("ucp_worker_create", ucp_worker_create(context, &worker_params, &worker));
    return worker;
}

// Parses `tcp://HOST:PORT`, where HOST is an IPv4 address. Returns 0 for other addresses.
static int parse(const char *address, struct sockaddr_in *place) {
    char host[64];
    unsigned port;
    if (sscanf(address, "tcp://%63[^:]:%u", host, &port) != 2 || port > UINT16_MAX) {
        return 0;
    }
    memset(place, 0, sizeof *place);
    place->sin_family = AF_INET;
    place->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &place->sin_addr) == 1;
}

// Makes progress until a request has ended. `length` is that of a received message, or NULL for others.
static void finish(ucp_worker_h worker, ucs_status_ptr_t request, size_t *length) {
    if (request == NULL) {
        return;
    }
    if (UCS_PTR_IS_ERR(request)) {
        fail("a message", UCS_PTR_STATUS(request));
    }
    ucp_tag_recv_info_t info = {.length = 0};
    ucs_status_t status;
    do {
        ucp_worker_progress(worker);
        status = length == NULL ? ucp_request_check_status(request) : ucp_tag_recv_request_test(request, &info);
    } while (status == UCS_INPROGRESS);
    check("a message", status);
    if (length != NULL) {
        *length = info.length;
    }
    ucp_request_free(request);
}

// Starts to receive a message. `info` has its length if it was there at once.
static ucs_status_ptr_t receive(ucp_worker_h worker, ucp_tag_recv_info_t *info) {
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_RECV_INFO, .recv_info.tag_info = info};
    return ucp_tag_recv_nbx(worker, buffer, sizeof buffer, ANY_TAG, 0, &param);
}

static void send_to(ucp_worker_h worker, ucp_ep_h peer, size_t bytes) {
    ucp_request_param_t param = {.op_attr_mask = 0};
    finish(worker, ucp_tag_send_nbx(peer, buffer, bytes, ANY_TAG, &param), NULL);
}

static void is_asked(ucp_conn_request_h request, void *unused) {
    (void)unused;
    asking = request;
}

static void *end_with_input(void *unused) {
    while (getchar() != EOF) {
    }
    _exit(0);
    return unused;
}

static void serve(struct sockaddr_in *place) {
    ucp_worker_h worker = make_worker();
    ucp_listener_params_t params = {
        .field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
        .sockaddr = {.addr = (struct sockaddr *)place, .addrlen = sizeof *place},
        .conn_handler = {.cb = is_asked},
    };
    ucp_listener_h listener;
    check("ucp_listener_create", ucp_listener_create(worker, &params, &listener));
    ucp_listener_attr_t bound = {.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR};
    check("ucp_listener_query", ucp_listener_query(listener, &bound));
    struct sockaddr_in *at = (struct sockaddr_in *)&bound.sockaddr;
    char host[64];
    inet_ntop(AF_INET, &at->sin_addr, host, sizeof host);
    printf("ready tcp://%s:%u\n", host, ntohs(at->sin_port));
    fflush(stdout);
    pthread_t waiting;
    if (pthread_create(&waiting, NULL, end_with_input, NULL) != 0) {
        exit(1);
    }
    ucp_ep_h peer = NULL;
    while (1) {
        ucp_tag_recv_info_t info = {.length = 0};
        ucs_status_ptr_t request = receive(worker, &info);
        size_t length = info.length;
        // A client connects before its first message arrives.
        while (peer == NULL) {
            ucp_worker_progress(worker);
            if (asking != NULL) {
                ucp_ep_params_t ep_params = {.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST, .conn_request = asking};
                check("ucp_ep_create", ucp_ep_create(worker, &ep_params, &peer));
                asking = NULL;
            }
        }
        finish(worker, request, &length);
        send_to(worker, peer, length);
    }
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// Measures echoes, and prints the answer.
static void echo(ucp_worker_h worker, ucp_ep_h server, uint64_t bytes, uint64_t messages) {
    int is_timed = messages <= MAX_LATENCIES;
    memset(buffer, 1, bytes);
    uint64_t start = now();
    for (uint64_t call = 0; call < messages; call++) {
        uint64_t sent = is_timed ? now() : 0;
        ucp_tag_recv_info_t info = {.length = 0};
        send_to(worker, server, bytes);
        ucs_status_ptr_t request = receive(worker, &info);
        size_t length = info.length;
        finish(worker, request, &length);
        if (length != bytes) {
            printf("failed an answer of %zu bytes to %" PRIu64 "\n", length, bytes);
            return;
        }
        if (is_timed) {
            latencies[call] = now() - sent;
        }
    }
    printf("done %" PRIu64, now() - start);
    for (uint64_t call = 0; is_timed && call < messages; call++) {
        printf(" %" PRIu64, latencies[call]);
    }
    printf("\n");
}

static void run(const char *line, ucp_worker_h worker, ucp_ep_h server) {
    char workload[32];
    uint64_t bytes, messages, in_flight;
    const char *form = "round %31s %" SCNu64 " %" SCNu64 " %" SCNu64;
    if (sscanf(line, form, workload, &bytes, &messages, &in_flight) != 4 || messages == 0) {
        printf("failed no round: %s", line);
    } else if (server == NULL) {
        printf("unsupported UCX has no Unix sockets; within a machine it would use shared memory\n");
    } else if (strcmp(workload, "echo") != 0 || in_flight != 1 || bytes > MAX_BYTES) {
        printf("unsupported it has echoes of up to 1 MiB, one at a time\n");
    } else {
        echo(worker, server, bytes, messages);
    }
    fflush(stdout);
}

static void client(struct sockaddr_in *place) {
    ucp_worker_h worker = NULL;
    ucp_ep_h server = NULL;
    if (place != NULL) {
        worker = make_worker();
        ucp_ep_params_t params = {
            .field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR,
            .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER,
            .sockaddr = {.addr = (struct sockaddr *)place, .addrlen = sizeof *place},
        };
        check("ucp_ep_create", ucp_ep_create(worker, &params, &server));
    }
    unsigned major, minor, release;
    ucp_get_version(&major, &minor, &release);
    printf("ready UCX %u.%u.%u, TLS tcp; tag matching, one thread a side, which asks for progress and never sleeps\n",
           major, minor, release);
    fflush(stdout);
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        run(line, worker, server);
    }
    // Without the handshake of a disconnect, whose other side may be stopped.
    _exit(0);
}

int main(int count, char **words) {
    struct sockaddr_in place;
    if (count != 3) {
        fprintf(stderr, "ucx_peer serve|client ADDRESS\n");
        return 1;
    }
    int has_place = parse(words[2], &place);
    if (strcmp(words[1], "client") == 0) {
        client(has_place ? &place : NULL);
    } else if (has_place) {
        serve(&place);
    } else {
        // Its client says that it has no such transport.
        printf("ready %s\n", words[2]);
        fflush(stdout);
        end_with_input(NULL);
    }
    return 0;
}
