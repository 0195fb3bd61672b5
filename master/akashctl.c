/* SPDX-License-Identifier: Apache-2.0
 *
 * akashctl.c - the operator's side of the control socket.
 *
 *     akashctl [-s SOCKET] [-j] reload | status | stop
 *
 * Exits 0 well, 1 refused or failed, 2 not reachable.
 */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/akashd/control.sock"

enum { EXIT_WELL, EXIT_REFUSED, EXIT_UNREACHABLE };

static void
print_usage(FILE *out)
{
    fputs("usage: akashctl [-s SOCKET] [-j] COMMAND\n"
          "  reload   read the configuration again; waits for the verdict\n"
          "  status   listeners, upstreams, backends, workers\n"
          "  stop     graceful stop\n"
          "  upgrade  replace the running binary; waits until the new one is in charge\n"
          "  -s SOCKET  the control socket (default " DEFAULT_SOCKET ")\n"
          "  -j         print JSON\n",
          out);
}

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

/* The line that answers command; for the caller to free; NULL: none came. */
static char *
ask(int fd, const char *command)
{
    char *line = NULL;
    size_t size = 0;
    FILE *peer = fdopen(fd, "r+");
    if (!peer) {
        return NULL;
    }
    fprintf(peer, "{\"command\": \"%s\"}\n", command);
    fflush(peer);
    if (getline(&line, &size, peer) <= 0) {
        free(line);
        line = NULL;
    }
    fclose(peer);
    return line;
}

static const char *
text_of(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(object, key, &value) || !value) {
        return "-";
    }
    return json_object_get_string(value);
}

/* One row for each member of the list: the values of keys, as wide as widths. */
static void
print_table(struct json_object *list, const char *const *keys, const int *widths, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        printf("%-*s ", widths[k], keys[k]);
    }
    printf("\n");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i);
        for (size_t k = 0; k < n; k++) {
            printf("%-*s ", widths[k], text_of(row, keys[k]));
        }
        printf("\n");
    }
}

static struct json_object *
list_of(struct json_object *object, const char *key)
{
    struct json_object *list = NULL;
    json_object_object_get_ex(object, key, &list);
    return json_object_is_type(list, json_type_array) ? list : NULL;
}

static void
print_status(struct json_object *status)
{
    static const char *const worker_keys[] = {"index", "pid", "state"};
    static const char *const listener_keys[] = {"name", "connections"};
    static const char *const backend_keys[] = {"id", "address", "health", "active", "last_check"};
    static const int worker_widths[] = {6, 8, 10}, listener_widths[] = {20, 12};
    static const int backend_widths[] = {28, 24, 8, 7, 24};
    printf("akashd %s, configuration %s\n\nworkers\n", text_of(status, "version"),
           text_of(status, "config_hash"));
    print_table(list_of(status, "workers"), worker_keys, worker_widths, 3);
    printf("\nlisteners\n");
    print_table(list_of(status, "listeners"), listener_keys, listener_widths, 2);
    struct json_object *upstreams = list_of(status, "upstreams");
    for (size_t i = 0; upstreams && i < json_object_array_length(upstreams); i++) {
        struct json_object *up = json_object_array_get_idx(upstreams, i);
        printf("\nupstream %s\n", text_of(up, "name"));
        print_table(list_of(up, "backends"), backend_keys, backend_widths, 5);
    }
}

static int
show(const char *command, const char *line, bool as_json)
{
    struct json_object *reply = json_tokener_parse(line);
    struct json_object *value = NULL;
    bool is_ok = json_object_object_get_ex(reply, "ok", &value) && json_object_get_boolean(value);
    if (as_json) {
        fputs(line, stdout);
    } else if (!is_ok) {
        fprintf(stderr, "%s\n", text_of(reply, "error"));
    } else if (json_object_object_get_ex(reply, "status", &value)) {
        print_status(value);
    } else {
        printf("%s: ok\n", command);
    }
    json_object_put(reply);
    return is_ok ? EXIT_WELL : EXIT_REFUSED;
}

static bool
is_command(const char *word)
{
    static const char *const words[] = {"reload", "status", "stop", "upgrade"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

int
main(int argc, char **argv)
{
    const char *path = DEFAULT_SOCKET;
    bool as_json = false;
    int option;
    while ((option = getopt(argc, argv, "s:jh")) != -1) {
        switch (option) {
        case 's': path = optarg; break;
        case 'j': as_json = true; break;
        case 'h': print_usage(stdout); return EXIT_WELL;
        default: print_usage(stderr); return EXIT_REFUSED;
        }
    }
    if (optind + 1 != argc || !is_command(argv[optind])) {
        print_usage(stderr);
        return EXIT_REFUSED;
    }
    signal(SIGPIPE, SIG_IGN); /* one that hangs up at once has given no answer */
    int fd = connect_to(path);
    char *line = fd >= 0 ? ask(fd, argv[optind]) : NULL;
    if (!line) {
        fprintf(stderr, "akashctl: %s: %s\n", path, fd >= 0 ? "no answer" : strerror(errno));
        return EXIT_UNREACHABLE;
    }
    int status = show(argv[optind], line, as_json);
    free(line);
    return status;
}
