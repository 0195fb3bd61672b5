/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - akashd: the command line, and the one place that knows both the control plane and the
 * data plane.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "config.h"
#include "master/cmdline.h"
#include "master/daemon.h"
#include "master/generation.h"
#include "master/master.h"
#include "master/takeover.h"
#include "shared/child.h"
#include "shared/title.h"

#include <event2/event.h>
#include <json-c/json_c_version.h>
#include <openssl/crypto.h>

static void
print_build(void)
{
    printf("akashd %s\n", PACKAGE_VERSION);
    printf("compiler %s\n", __VERSION__);
    printf("libevent %s\n", event_get_version());
    printf("%s\n", OpenSSL_version(OPENSSL_VERSION));
    printf("json-c %s\n", json_c_version());
}

static struct generation_origin
origin_of(const struct cmdline *cmd)
{
    return (struct generation_origin){.path = cmd->config};
}

static enum master_exit
check(const struct cmdline *cmd)
{
    struct generation_origin origin = origin_of(cmd);
    struct generation gen;
    struct conf_errors errors = {0};
    generation_init(&gen);
    load_here(&origin, &gen, &errors);
    for (unsigned i = 0; i < errors.nerrors; i++) {
        fprintf(stderr, "%s\n", errors.errors[i]);
    }
    for (unsigned i = 0; i < errors.nwarnings; i++) {
        fprintf(stderr, "warning: %s\n", errors.warnings[i]);
    }
    bool is_good = gen.conf != NULL;
    if (is_good && cmd->action == CMDLINE_PRINT_CONF) {
        conf_print(gen.conf, stdout);
    } else if (is_good) {
        printf("%s: the configuration is good\n", cmd->config);
    }
    conf_errors_fini(&errors);
    generation_fini(&gen);
    return is_good ? MASTER_EXIT_OK : MASTER_EXIT_CONFIG;
}

static enum master_exit
run(const struct cmdline *cmd, char **argv)
{
    struct master_options options = {
        .origin = origin_of(cmd),
        .argv = argv,
        .pid_file = cmd->pid_file,
        .is_daemon = cmd->is_daemon,
        .is_demo = cmd->is_demo,
        .worker = worker_main,
        .monitor = monitor_main,
    };
    /* A new binary is where its former master was already. */
    if (cmd->is_daemon && !takeover_is_asked() && daemon_begin() < 0) {
        fprintf(stderr, "akashd: cannot go to the background: %s\n", strerror(errno));
        return MASTER_EXIT_START;
    }
    enum master_exit status = master_run(&options);
    daemon_tell_parent(status);
    return status;
}

int
main(int argc, char **argv)
{
    struct cmdline cmd;
    char why[256];
    title_init(argc, argv);
    if (argc < 2) {
        cmdline_print_usage(stderr);
        return MASTER_EXIT_CONFIG;
    }
    if (cmdline_parse(argc, argv, &cmd, why, sizeof(why)) < 0) {
        fprintf(stderr, "akashd: %s\n", why);
        cmdline_print_usage(stderr);
        return MASTER_EXIT_CONFIG;
    }
    switch (cmd.action) {
    case CMDLINE_HELP: cmdline_print_usage(stdout); return MASTER_EXIT_OK;
    case CMDLINE_VERSION: printf("akashd %s\n", PACKAGE_VERSION); return MASTER_EXIT_OK;
    case CMDLINE_BUILD: print_build(); return MASTER_EXIT_OK;
    case CMDLINE_PRINT_SCHEMA: conf_print_schema(stdout); return MASTER_EXIT_OK;
    case CMDLINE_PRINT_MANUAL: conf_print_manual(stdout); return MASTER_EXIT_OK;
    case CMDLINE_CHECK:
    case CMDLINE_PRINT_CONF: return check(&cmd);
    case CMDLINE_RUN: break;
    }
    return run(&cmd, argv);
}
