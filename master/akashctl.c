/* SPDX-License-Identifier: Apache-2.0
 *
 * akashctl.c - the operator's side of the control socket: words become a line of JSON, the answer
 * becomes words. The manual is akashctl.1.
 *
 * Exits 0 well, 1 refused or failed, 2 not reachable.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "master/ctl_print.h"

#define DEFAULT_SOCKET "/run/akashd/control.sock"

enum { EXIT_WELL, EXIT_REFUSED, EXIT_UNREACHABLE };

static const char *socket_path = DEFAULT_SOCKET;
static bool as_json;

static const char usage_text[] =
    "usage: akashctl [-s SOCKET] [-j] COMMAND ...\n"
    "  status                   listeners, upstreams and backends, with rates of one second\n"
    "  top [COUNT]              the same every second\n"
    "  reload [--wait]          read the configuration again; waits for the verdict\n"
    "  diff [FILE]              what a reload (with that file) would change, and whom it touches\n"
    "  drain UPSTREAM/BACKEND   send nothing new there; what runs ends\n"
    "  maint UPSTREAM/BACKEND   the same, for maintenance\n"
    "  ready UPSTREAM/BACKEND   send requests there again\n"
    "  weight UPSTREAM/BACKEND N\n"
    "  breaker open|close|auto UPSTREAM/BACKEND\n"
    "                           open or close its circuit breaker by hand; auto: as the file says\n"
    "  log level LEVEL          error, warn, info, debug; file: that of the configuration\n"
    "  explain URL [--host HOST] [--method METHOD] [--client ADDRESS]\n"
    "                           which listener, route, upstream and backend would get it\n"
    "  config                   the configuration in force, with every default\n"
    "  upgrade                  replace the running binary; waits until the new one is in charge\n"
    "  stop                     graceful stop\n"
    "  -s SOCKET  the control socket (default " DEFAULT_SOCKET ")\n"
    "  -j         print the answer as JSON\n";

/* Something has gone wrong on this side of the socket. */
static void
complain(const char *object, const char *cause)
{
    char text[PATH_MAX + 256];
    snprintf(text, sizeof(text), "%s: %s", object, cause);
    if (!as_json) {
        fprintf(stderr, "akashctl: %s\n", text);
        return;
    }
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "ok", json_object_new_boolean(false));
    json_object_object_add(reply, "error", json_object_new_string(text));
    printf("%s\n", json_object_to_json_string_ext(reply, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(reply);
}

/* ---- asking ---- */

static int
connect_to(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sun.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(sun.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The line that answers; for the caller to free; NULL: none came. */
static char *
exchange(int fd, struct json_object *request)
{
    char *line = NULL;
    size_t size = 0;
    FILE *peer = fdopen(fd, "r+");
    if (!peer) {
        return NULL;
    }
    fprintf(peer, "%s\n", json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN));
    fflush(peer);
    if (getline(&line, &size, peer) <= 0) {
        free(line);
        line = NULL;
    }
    fclose(peer);
    return line;
}

/* The answer, for the caller to put; ends the program when there is none. */
static struct json_object *
ask(struct json_object *request)
{
    int fd = connect_to(socket_path);
    char *line = fd >= 0 ? exchange(fd, request) : NULL;
    if (!line) {
        complain(socket_path, fd >= 0 ? "no answer" : strerror(errno));
        exit(EXIT_UNREACHABLE);
    }
    struct json_object *reply = json_tokener_parse(line);
    free(line);
    if (!reply) {
        complain(socket_path, "the answer is not understood");
        exit(EXIT_UNREACHABLE);
    }
    return reply;
}

static struct json_object *
request_of(const char *command)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "command", json_object_new_string(command));
    return request;
}

static void
add_text(struct json_object *request, const char *key, const char *text)
{
    json_object_object_add(request, key, json_object_new_string(text));
}

/* ---- answers ---- */

static bool
is_ok(struct json_object *reply)
{
    struct json_object *value = NULL;
    return json_object_object_get_ex(reply, "ok", &value) && json_object_get_boolean(value);
}

static struct json_object *
part(struct json_object *reply, const char *key)
{
    struct json_object *value = NULL;
    json_object_object_get_ex(reply, key, &value);
    return value;
}

static void
print_words(const char *command, struct json_object *reply)
{
    if (part(reply, "config")) {
        fputs(json_object_get_string(part(reply, "config")), stdout);
    } else if (part(reply, "explain")) {
        ctl_print_explain(part(reply, "explain"));
    } else if (part(reply, "diff")) {
        ctl_print_diff(part(reply, "diff"), strcmp(command, "diff") == 0);
    } else {
        printf("%s: ok\n", command);
    }
}

/* Takes request. The exit status. */
static int
run(const char *command, struct json_object *request)
{
    struct json_object *reply = ask(request);
    bool is_well = is_ok(reply);
    if (as_json) {
        printf("%s\n", json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PRETTY |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE));
    } else if (!is_well) {
        fprintf(stderr, "%s\n", json_object_get_string(part(reply, "error")));
    } else {
        print_words(command, reply);
    }
    json_object_put(request);
    json_object_put(reply);
    return is_well ? EXIT_WELL : EXIT_REFUSED;
}

/* ---- commands ---- */

static int
refuse_usage(void)
{
    fputs(usage_text, stderr);
    return EXIT_REFUSED;
}

static int
run_plain(int argc, char **argv)
{
    bool may_wait = strcmp(argv[0], "reload") == 0 && argc == 2 && strcmp(argv[1], "--wait") == 0;
    return argc == 1 || may_wait ? run(argv[0], request_of(argv[0])) : refuse_usage();
}

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Two answers, a second apart, make rates. */
static int
run_status(int argc, char **argv)
{
    bool is_top = strcmp(argv[0], "top") == 0;
    long count = is_top && argc == 2 ? strtol(argv[1], NULL, 10) : is_top ? LONG_MAX : 1;
    const struct timespec second = {.tv_sec = 1};
    if (argc > (is_top ? 2 : 1) || count < 1) {
        return refuse_usage();
    }
    struct json_object *request = request_of("status");
    if (as_json && !is_top) {
        return run("status", request);
    }
    struct json_object *before = ask(request);
    double was_s = seconds_now();
    for (; count > 0; count--) {
        nanosleep(&second, NULL);
        struct json_object *now = ask(request);
        double now_s = seconds_now();
        if (is_top && as_json) {
            printf("%s\n", json_object_to_json_string_ext(now, JSON_C_TO_STRING_PLAIN));
        } else {
            ctl_print_status(part(before, "status"), part(now, "status"), now_s - was_s,
                             is_top && isatty(STDOUT_FILENO));
        }
        fflush(stdout);
        json_object_put(before);
        before = now;
        was_s = now_s;
    }
    json_object_put(before);
    json_object_put(request);
    return EXIT_WELL;
}

static int
run_backend(int argc, char **argv)
{
    bool is_weight = strcmp(argv[0], "weight") == 0;
    char *rest = NULL;
    if (argc != (is_weight ? 3 : 2)) {
        return refuse_usage();
    }
    struct json_object *request = request_of(argv[0]);
    add_text(request, "backend", argv[1]);
    if (is_weight) {
        json_object_object_add(request, "weight",
                               json_object_new_int64(strtoll(argv[2], &rest, 10)));
        if (*rest || rest == argv[2]) {
            json_object_put(request);
            return refuse_usage();
        }
    }
    return run(argv[0], request);
}

static int
run_breaker(int argc, char **argv)
{
    if (argc != 3) {
        return refuse_usage();
    }
    struct json_object *request = request_of("breaker");
    add_text(request, "state", argv[1]);
    add_text(request, "backend", argv[2]);
    return run("breaker", request);
}

static int
run_log(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "level") != 0) {
        return refuse_usage();
    }
    struct json_object *request = request_of("log");
    add_text(request, "level", argv[2]);
    return run("log level", request);
}

static int
run_explain(int argc, char **argv)
{
    static const char *const options[] = {"host", "method", "client"};
    if (argc < 2 || argc % 2 != 0) {
        return refuse_usage();
    }
    struct json_object *request = request_of("explain");
    add_text(request, "url", argv[1]);
    for (int i = 2; i < argc; i += 2) {
        size_t o = 0;
        while (o < 3 && (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, options[o]) != 0)) {
            o++;
        }
        if (o == 3) {
            json_object_put(request);
            return refuse_usage();
        }
        add_text(request, options[o], argv[i + 1]);
    }
    return run("explain", request);
}

/* The file is read here: who may ask need not be allowed to read what the daemon may. */
static int
run_diff(int argc, char **argv)
{
    char path[PATH_MAX];
    struct json_object *request = request_of("diff");
    if (argc > 2) {
        json_object_put(request);
        return refuse_usage();
    }
    if (argc == 2) {
        char *text = ctl_read_file(argv[1]);
        if (!text || !realpath(argv[1], path)) {
            complain(argv[1], strerror(errno));
            free(text);
            json_object_put(request);
            return EXIT_REFUSED;
        }
        add_text(request, "name", path);
        add_text(request, "text", text);
        free(text);
    }
    return run("diff", request);
}

static const struct {
    const char *word;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"status", run_status}, {"top", run_status},      {"reload", run_plain},
    {"diff", run_diff},     {"drain", run_backend},   {"maint", run_backend},
    {"ready", run_backend}, {"weight", run_backend},  {"breaker", run_breaker},
    {"log", run_log},       {"explain", run_explain}, {"config", run_plain},
    {"upgrade", run_plain}, {"stop", run_plain},
};

int
main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "+s:jh")) != -1) {
        switch (option) {
        case 's': socket_path = optarg; break;
        case 'j': as_json = true; break;
        case 'h': fputs(usage_text, stdout); return EXIT_WELL;
        default: return refuse_usage();
        }
    }
    signal(SIGPIPE, SIG_IGN); /* one that hangs up at once has given no answer */
    for (size_t i = 0; optind < argc && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[optind], commands[i].word) == 0) {
            return commands[i].run(argc - optind, argv + optind);
        }
    }
    return refuse_usage();
}
