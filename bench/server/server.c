/* The device of the benchmark: answers from prepared bytes, so that it is never the bottleneck.
 *
 *     server SENSORS
 *
 * listens on a free port of the loopback address, prints the port, and ends with its standard
 * input. One process, one thread, one epoll. It has that many sensors, and answers (with or
 * without an id):
 *
 *     ?echo ...       !echo ok
 *     ?informs N      N informs of this request, then !informs ok N
 *     ?flood N        !flood ok, then N times sensor-status, of the first 1024 sensors in turn
 *     ?fetch KIND     !fetch ok <1 MiB>; KIND: see `payloads`
 *     ?swallow ...    !swallow ok, however large the argument
 *     ?silent         nothing, ever
 *     ?help           the requests that clients look for
 *     ?sensor-list    all sensors, whichever are asked for
 *     ?sensor-sampling NAME,... STRATEGY
 *                     sensor-status of each, then !sensor-sampling ok NAME,... STRATEGY
 *
 * Anything else is answered with !name invalid. fallback.py does the same in Python.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEBIBYTE (1024 * 1024)
#define BLOCK_LINES 1024     /* lines that are prepared and sent over and over */
#define FIRST_INPUT 4096     /* the input buffer of a connection grows from here */
#define READ_SIZE (256 * 1024)

static const char GREETING[] =
    "#version-connect katcp-protocol 5.1-MIB\n"
    "#version-connect katcp-library bench-1\n"
    "#version-connect katcp-device bench-1\n";

static const char *const REQUESTS[] = {"flood", "help", "sensor-list", "sensor-sampling"};
#define REQUEST_COUNT (sizeof REQUESTS / sizeof *REQUESTS)

#define SENSOR "bench.sensor.%05d"
#define STATUS(name) "#sensor-status 1500000000.000000 1 " name " nominal 1234.567\n"

/* Something to send: a block that is repeated until `total` bytes are out. */
struct output {
    struct output *next;
    char *block;
    size_t block_size, total, sent;
    bool owned;              /* the block is freed with the output */
    size_t capacity;         /* of an owned block to which replies may be appended; else 0 */
};

struct connection {
    int socket;
    char *input;
    size_t input_size, input_used, scanned;
    struct output *first, *last;
    bool waits_for_room;     /* the kernel's buffer is full */
};

/* 1 MiB, escaped; the same bytes as bench/workers/lines.py makes. */
struct prepared {
    const char *kind;
    size_t special_every;    /* every so many bytes one has to be escaped; 0: none */
    const char *escapes;     /* what then follows the backslash, in turn */
    char *bytes;
    size_t size;
};

#define ALL_ESCAPES "\\_0nret"

static int poller;
static int sensors;
static char *flood_block;
static size_t status_size, flood_block_size;
static struct prepared payloads[] = {
    {.kind = "plain"},
    {.kind = "escaped-16", .special_every = 16, .escapes = ALL_ESCAPES},
    {.kind = "escaped-2", .special_every = 2, .escapes = ALL_ESCAPES},
    {.kind = "spaces-16", .special_every = 16, .escapes = "_"},
    {.kind = "spaces-2", .special_every = 2, .escapes = "_"},
    {.kind = "zeros", .special_every = 1, .escapes = "0"},
};
#define PAYLOADS (sizeof payloads / sizeof *payloads)

static void *must(void *memory) {
    if (memory == NULL) {
        perror("memory");
        exit(1);
    }
    return memory;
}

static char plain_byte(size_t i) { return "abcdefghijklmnopqrstuvwxyz0123456789"[i % 36]; }

static void prepare(struct prepared *payload) {
    size_t every = payload->special_every, kinds = every ? strlen(payload->escapes) : 0;
    char *to = payload->bytes = must(malloc(2 * MEBIBYTE + 1));
    for (size_t i = 0; i < MEBIBYTE; i++) {
        if (every && i % every == every - 1) {
            *to++ = '\\';
            *to++ = payload->escapes[i / every % kinds];
        } else {
            *to++ = plain_byte(i);
        }
    }
    *to++ = '\n';
    payload->size = to - payload->bytes;
}

static void prepare_all(void) {
    for (size_t i = 0; i < PAYLOADS; i++)
        prepare(&payloads[i]);
    status_size = snprintf(NULL, 0, STATUS(SENSOR), 0);
    int lines = sensors < BLOCK_LINES ? sensors : BLOCK_LINES;
    flood_block_size = lines * status_size;
    flood_block = must(malloc(flood_block_size + 1));
    for (int i = 0; i < lines; i++)
        sprintf(flood_block + i * status_size, STATUS(SENSOR), i);
}

/* What goes out. */

static struct output *enqueue(struct connection *c, char *block, size_t block_size, size_t total) {
    struct output *o = must(calloc(1, sizeof *o));
    o->block = block;
    o->block_size = block_size;
    o->total = total;
    if (c->last)
        c->last->next = o;
    else
        c->first = o;
    return c->last = o;
}

static void append(struct connection *c, const char *bytes, size_t size) {
    struct output *o = c->last;
    if (o == NULL || o->total + size > o->capacity) {
        size_t capacity = size > 16384 ? size : 16384;
        o = enqueue(c, must(malloc(capacity)), 0, 0);
        o->capacity = capacity;
        o->owned = true;
    }
    memcpy(o->block + o->total, bytes, size);
    o->block_size = o->total += size;
}

static void drop_first(struct connection *c) {
    struct output *o = c->first;
    c->first = o->next;
    if (c->first == NULL)
        c->last = NULL;
    if (o->owned)
        free(o->block);
    free(o);
}

static void watch(struct connection *c, bool for_room) {
    struct epoll_event event = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->socket, &event);
    c->waits_for_room = for_room;
}

/* Send until all is out or the kernel takes no more; return whether the connection lives. */
static bool flush(struct connection *c) {
    while (c->first) {
        struct output *o = c->first;
        if (o->sent == o->total) {
            drop_first(c);
            continue;
        }
        size_t start = o->sent % o->block_size, size = o->block_size - start;
        if (size > o->total - o->sent)
            size = o->total - o->sent;
        ssize_t sent = send(c->socket, o->block + start, size,
                            MSG_NOSIGNAL | (o->next ? MSG_MORE : 0));
        if (sent < 0) {
            if (errno != EAGAIN)
                return false;
            if (!c->waits_for_room)
                watch(c, true);
            return true;
        }
        o->sent += sent;
    }
    if (c->waits_for_room)
        watch(c, false);
    return true;
}

/* Requests. */

static void send_informs(struct connection *c, const char *id, int id_size, size_t count) {
    char line[160];
    int size = snprintf(line, sizeof line, "#informs%.*s a.sensor.of.the.bench nominal 1234.567\n",
                        id_size, id);
    char *block = must(malloc((size_t)size * BLOCK_LINES));
    for (size_t i = 0; i < BLOCK_LINES; i++)
        memcpy(block + i * size, line, size);
    enqueue(c, block, (size_t)size * BLOCK_LINES, (size_t)size * count)->owned = true;
    size = snprintf(line, sizeof line, "!informs%.*s ok %zu\n", id_size, id, count);
    append(c, line, size);
}

static void send_payload(struct connection *c, const char *kind, size_t kind_size) {
    for (size_t i = 0; i < PAYLOADS; i++)
        if (strlen(payloads[i].kind) == kind_size && !memcmp(payloads[i].kind, kind, kind_size))
            enqueue(c, payloads[i].bytes, payloads[i].size, payloads[i].size);
}

static void list_requests(struct connection *c, const char *id, int id_size) {
    char line[320];
    for (size_t i = 0; i < REQUEST_COUNT; i++)
        append(c, line, snprintf(line, sizeof line, "#help%.*s %s A\\_request.\n", id_size, id,
                                 REQUESTS[i]));
    append(c, line, snprintf(line, sizeof line, "!help%.*s ok %zu\n", id_size, id, REQUEST_COUNT));
}

static void list_sensors(struct connection *c, const char *id, int id_size) {
    char line[320];
    for (int i = 0; i < sensors; i++)
        append(c, line, snprintf(line, sizeof line,
                                 "#sensor-list%.*s " SENSOR " A\\_sensor. m float\n",
                                 id_size, id, i));
    append(c, line, snprintf(line, sizeof line, "!sensor-list%.*s ok %d\n", id_size, id, sensors));
}

/* The reply repeats the arguments. */
static void sample_sensors(struct connection *c, const char *id, int id_size,
                           const char *arguments, size_t size) {
    const char *end = arguments + size, *names_end = memchr(arguments, ' ', size);
    char line[320];
    for (const char *name = arguments; names_end && name < names_end;) {
        size_t name_size = strcspn(name, ", ");
        append(c, line, snprintf(line, sizeof line, STATUS("%.*s"),
                                 name_size < 200 ? (int)name_size : 200, name));
        name += name_size + 1;
    }
    append(c, line, snprintf(line, sizeof line, "!sensor-sampling%.*s ok ", id_size, id));
    append(c, arguments, end - arguments);
    append(c, "\n", 1);
}

static bool is_named(const char *name, size_t size, const char *wanted) {
    return strlen(wanted) == size && !memcmp(name, wanted, size);
}

static void answer(struct connection *c, const char *line, size_t size) {
    if (size < 2 || *line != '?')
        return;
    const char *end = line + size, *name = line + 1;
    const char *space = memchr(name, ' ', size - 1), *head_end = space ? space : end;
    const char *id = memchr(name, '[', head_end - name);
    if (id == NULL)
        id = head_end;
    size_t name_size = id - name;
    int id_size = head_end - id;
    const char *argument = space ? space + 1 : end;
    char reply[256];
    bool known = is_named(name, name_size, "echo") || is_named(name, name_size, "swallow") ||
                 is_named(name, name_size, "flood");
    if (is_named(name, name_size, "silent"))
        return;
    if (is_named(name, name_size, "informs")) {
        send_informs(c, id, id_size, strtoul(argument, NULL, 10));
    } else if (is_named(name, name_size, "fetch")) {
        append(c, reply, snprintf(reply, sizeof reply, "!fetch%.*s ok ", id_size, id));
        send_payload(c, argument, end - argument);
    } else if (id_size < 200 && is_named(name, name_size, "help")) {
        list_requests(c, id, id_size);
    } else if (id_size < 200 && is_named(name, name_size, "sensor-list")) {
        list_sensors(c, id, id_size);
    } else if (id_size < 200 && is_named(name, name_size, "sensor-sampling")) {
        sample_sensors(c, id, id_size, argument, end - argument);
    } else if (name_size + id_size < 200) {
        append(c, reply, snprintf(reply, sizeof reply, "!%.*s %s\n", (int)(head_end - name), name,
                                  known ? "ok" : "invalid"));
    }
    if (is_named(name, name_size, "flood"))
        enqueue(c, flood_block, flood_block_size, status_size * strtoul(argument, NULL, 10));
}

/* What comes in. */

static void answer_lines(struct connection *c) {
    char *line = c->input, *end = c->input + c->input_used, *newline;
    char *search = c->input + c->scanned;
    while ((newline = memchr(search, '\n', end - search))) {
        *newline = '\0';
        answer(c, line, newline - line);
        search = line = newline + 1;
    }
    c->scanned = c->input_used = end - line;
    if (line != c->input)
        memmove(c->input, line, c->input_used);
}

/* Read what is there and answer it; return whether the connection lives. */
static bool receive(struct connection *c) {
    for (;;) {
        if (c->input_size - c->input_used < FIRST_INPUT) {
            c->input_size = c->input_size ? c->input_size * 4 : 2 * FIRST_INPUT;
            c->input = must(realloc(c->input, c->input_size));
        }
        size_t room = c->input_size - c->input_used - 1;
        if (room > READ_SIZE)
            room = READ_SIZE;
        ssize_t size = recv(c->socket, c->input + c->input_used, room, 0);
        if (size == 0 || (size < 0 && errno != EAGAIN))
            return false;
        if (size < 0)
            return flush(c);
        c->input_used += size;
        answer_lines(c);
        if ((size_t)size < room)
            return flush(c);
    }
}

static void accept_all(int listener) {
    int socket, on = 1;
    while ((socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = must(calloc(1, sizeof *c));
        c->socket = socket;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event);
        append(c, GREETING, sizeof GREETING - 1);
        flush(c);
    }
}

static void forget(struct connection *c) {
    close(c->socket);
    while (c->first)
        drop_first(c);
    free(c->input);
    free(c);
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) {
        perror("listen");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    sensors = argc > 1 ? atoi(argv[1]) : 0;
    if (sensors < 1 || sensors > 100000) {
        fprintf(stderr, "usage: server SENSORS (1 to 100000)\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare_all();
    poller = epoll_create1(0);
    int listener = listen_anywhere();
    /* The listener and the standard input have tags of their own instead of a connection. */
    static struct connection listening, input;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listening};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &input;
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &input)
                return 0;
            if (c == &listening) {
                accept_all(listener);
                continue;
            }
            bool lives = true;
            if (events[i].events & EPOLLOUT)
                lives = flush(c);
            if (lives && events[i].events & ~EPOLLOUT)
                lives = receive(c);
            if (!lives)
                forget(c);
        }
    }
}
