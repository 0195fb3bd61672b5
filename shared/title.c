/* SPDX-License-Identifier: Apache-2.0
 *
 * title.c - titles are written where the kernel put argv and, behind it, the environment.
 */
#include "shared/title.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct {
    char *begin; /* NULL: no title_init */
    char *end;   /* behind the last byte */
} area;

/* How far the strings go on without a gap from end. */
static char *
contiguous_end(char *const *strings, char *end)
{
    for (; *strings && *strings == end; strings++) {
        end += strlen(end) + 1;
    }
    return end;
}

/* A copy of a NULL-terminated array and its strings, in one piece; NULL without memory. */
static char **
copy_strings(char *const *strings)
{
    size_t n = 0, bytes = 0;
    for (; strings[n]; n++) {
        bytes += strlen(strings[n]) + 1;
    }
    char **copy = malloc((n + 1) * sizeof(*copy) + bytes);
    if (!copy) {
        return NULL;
    }
    char *at = (char *)(copy + n + 1);
    for (size_t i = 0; i < n; i++) {
        copy[i] = at;
        at = stpcpy(at, strings[i]) + 1;
    }
    copy[n] = NULL;
    return copy;
}

void
title_init(int argc, char **argv)
{
    static char **args; /* reachable for as long as the process lives */
    if (argc < 1 || area.begin) {
        return;
    }
    args = copy_strings(argv);
    char **env = copy_strings(environ);
    if (!args || !env) {
        free(args);
        free(env);
        args = NULL;
        return;
    }
    area.begin = argv[0];
    area.end = contiguous_end(environ, contiguous_end(argv, argv[0]));
    memcpy(argv, args, (size_t)argc * sizeof(*argv));
    environ = env;
    program_invocation_name = argv[0];
    char *slash = strrchr(argv[0], '/');
    program_invocation_short_name = slash ? slash + 1 : argv[0];
}

void
title_set(const char *format, ...)
{
    char title[512];
    va_list args;
    if (!area.begin) {
        return;
    }
    va_start(args, format);
    vsnprintf(title, sizeof(title), format, args);
    va_end(args);
    /* The last byte stays NUL: it tells the kernel where the title ends. */
    size_t room = (size_t)(area.end - area.begin) - 1;
    size_t len = strnlen(title, room);
    memcpy(area.begin, title, len);
    memset(area.begin + len, 0, room + 1 - len);
    prctl(PR_SET_NAME, "akashd");
}
