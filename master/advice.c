/* SPDX-License-Identifier: Apache-2.0
 *
 * advice.c - three limits that only the machine's owner can raise.
 */
#include "master/advice.h"

#include <stdio.h>
#include <stdlib.h>

#include "shared/log.h"

#define OPEN_FILES_FEW 65536 /* below it a flood of clients finds the end of a worker soon */

/* The listener whose queue is cut the most; NULL: none is. */
static const struct conf_listener *
longest_backlog(const struct conf *conf, long somaxconn)
{
    const struct conf_listener *longest = NULL;
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        if (l->backlog > (unsigned long)somaxconn && (!longest || l->backlog > longest->backlog)) {
            longest = l;
        }
    }
    return longest;
}

static unsigned
advise_somaxconn(const struct conf *conf, long somaxconn, char *line)
{
    const struct conf_listener *l =
        somaxconn == ADVICE_UNKNOWN ? NULL : longest_backlog(conf, somaxconn);
    if (!l) {
        return 0;
    }
    snprintf(line, ADVICE_TEXT_SIZE,
             "advice: net.core.somaxconn is %ld: it cuts the backlog of %u of listener %s",
             somaxconn, (unsigned)l->backlog, l->name);
    return 1;
}

static unsigned
advise_migrate(long tcp_migrate_req, char *line)
{
    if (tcp_migrate_req != 0) {
        return 0;
    }
    snprintf(line, ADVICE_TEXT_SIZE,
             "advice: net.ipv4.tcp_migrate_req is 0: handshakes under way are lost when a worker's "
             "socket closes; 1 moves them to another");
    return 1;
}

static unsigned
advise_open_files(const struct conf *conf, unsigned long long open_files, char *line)
{
    /* A smaller max_connections than these carry was chosen: nothing to say. */
    if (open_files >= OPEN_FILES_FEW || conf->max_connections < open_files / 2 * conf->workers) {
        return 0;
    }
    snprintf(line, ADVICE_TEXT_SIZE,
             "advice: open files are limited to %llu a process, and clients to %u by that: raise "
             "the hard limit (LimitNOFILE, ulimit -Hn)",
             open_files, conf->max_connections);
    return 1;
}

unsigned
advice_write(const struct conf *conf, const struct advice_facts *facts,
             char lines[ADVICE_MAX][ADVICE_TEXT_SIZE])
{
    unsigned n = advise_somaxconn(conf, facts->somaxconn, lines[0]);
    n += advise_migrate(facts->tcp_migrate_req, lines[n]);
    n += advise_open_files(conf, facts->open_files, lines[n]);
    return n;
}

static long
read_number(const char *path)
{
    long value = ADVICE_UNKNOWN;
    FILE *in = fopen(path, "re");
    if (in) {
        if (fscanf(in, "%ld", &value) != 1) {
            value = ADVICE_UNKNOWN;
        }
        fclose(in);
    }
    return value;
}

void
advice_give(const struct conf *conf)
{
    char lines[ADVICE_MAX][ADVICE_TEXT_SIZE];
    struct conf_machine machine;
    conf_machine_read(&machine);
    struct advice_facts facts = {.somaxconn = read_number("/proc/sys/net/core/somaxconn"),
                                 .tcp_migrate_req =
                                     read_number("/proc/sys/net/ipv4/tcp_migrate_req"),
                                 .open_files = machine.open_files};
    unsigned n = advice_write(conf, &facts, lines);
    for (unsigned i = 0; i < n; i++) {
        log_info("%s", lines[i]);
    }
}
