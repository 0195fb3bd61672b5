/* SPDX-License-Identifier: Apache-2.0
 *
 * cmdline.c - the command line of akashd: one table of options, read by getopt_long.
 */
#include "master/cmdline.h"

#include <getopt.h>
#include <string.h>

enum { OPTION_SCHEMA = 256, OPTION_MANUAL, OPTION_DEMO };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"pid-file", required_argument, NULL, 'p'},
    {"daemon", no_argument, NULL, 'D'},
    {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"print-schema", no_argument, NULL, OPTION_SCHEMA},
    {"print-manual", no_argument, NULL, OPTION_MANUAL},
    {"demo", no_argument, NULL, OPTION_DEMO},
    {NULL, 0, NULL, 0},
};

static const char usage_text[] =
    "usage: akashd -c FILE [-t | -T] [-D] [-p FILE]\n"
    "       akashd --demo\n"
    "  -c, --config FILE  the configuration; -config FILE does too\n"
    "  -t                 check the configuration and exit\n"
    "  -T                 check it and print it with every default\n"
    "  -D, --daemon       go to the background when ready\n"
    "  -p, --pid-file FILE\n"
    "                     write the master's process id there\n"
    "      --demo         run with two built-in backends on 127.0.0.1:1902, no file\n"
    "      --print-schema print the JSON schema of the configuration\n"
    "      --print-manual print the manual page of the configuration\n"
    "  -v, --version      print the version\n"
    "  -V                 print the version and how it was built\n"
    "  -h, --help         print this\n";

void
cmdline_print_usage(FILE *out)
{
    fputs(usage_text, out);
}

/* getopt would read "-config" as "-c onfig". One dash in front of what stands there makes it
 * "--config"; the copies are never freed, they live as long as argv. */
static void
cmdline_rewrite(int argc, char **argv)
{
    static char longer[] = "--config";
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "-config") == 0) {
            argv[i] = longer;
        } else if (strncmp(argv[i], "-config=", 8) == 0) {
            /* "-config=FILE" becomes "-cFILE" in place. */
            memmove(argv[i] + 2, argv[i] + 8, strlen(argv[i] + 8) + 1);
        }
    }
}

static void
cmdline_set_action(struct cmdline *out, enum cmdline_action action)
{
    /* The first wins, but help always does. */
    if (out->action == CMDLINE_RUN || action == CMDLINE_HELP) {
        out->action = action;
    }
}

static int
cmdline_take(struct cmdline *out, int option)
{
    switch (option) {
    case 'c': out->config = optarg; return 0;
    case 'p': out->pid_file = optarg; return 0;
    case 'D': out->is_daemon = true; return 0;
    case OPTION_DEMO: out->is_demo = true; return 0;
    case 't': cmdline_set_action(out, CMDLINE_CHECK); return 0;
    case 'T': cmdline_set_action(out, CMDLINE_PRINT_CONF); return 0;
    case 'v': cmdline_set_action(out, CMDLINE_VERSION); return 0;
    case 'V': cmdline_set_action(out, CMDLINE_BUILD); return 0;
    case 'h': cmdline_set_action(out, CMDLINE_HELP); return 0;
    case OPTION_SCHEMA: cmdline_set_action(out, CMDLINE_PRINT_SCHEMA); return 0;
    case OPTION_MANUAL: cmdline_set_action(out, CMDLINE_PRINT_MANUAL); return 0;
    default: return -1;
    }
}

static bool
cmdline_needs_config(const struct cmdline *line)
{
    return line->action == CMDLINE_RUN || line->action == CMDLINE_CHECK ||
           line->action == CMDLINE_PRINT_CONF;
}

static int
cmdline_check(int argc, char **argv, const struct cmdline *line, char *why, size_t why_size)
{
    if (optind < argc) {
        snprintf(why, why_size, "unexpected argument: %s", argv[optind]);
        return -1;
    }
    if (line->config && line->is_demo) {
        snprintf(why, why_size, "--demo takes no configuration");
        return -1;
    }
    if (line->config && line->config[0] == '\0') {
        snprintf(why, why_size, "the name of the configuration is empty");
        return -1;
    }
    bool is_demo = line->is_demo && line->action == CMDLINE_RUN; /* which has no file to check */
    if (cmdline_needs_config(line) && !line->config && !is_demo) {
        snprintf(why, why_size, "no configuration: say -c FILE");
        return -1;
    }
    return 0;
}

int
cmdline_parse(int argc, char **argv, struct cmdline *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof(*out));
    cmdline_rewrite(argc, argv);
    optind = 0; /* glibc: begin anew, also in a second call */
    opterr = 0;
    int option;
    while ((option = getopt_long(argc, argv, ":c:p:tTDvVh", long_options, NULL)) != -1) {
        if (option == ':') {
            snprintf(why, why_size, "%s needs an argument", argv[optind - 1]);
            return -1;
        }
        if (cmdline_take(out, option) < 0) {
            /* In a cluster optind stays at it: only optopt says which letter. */
            if (optopt > 0 && optopt < 128) {
                snprintf(why, why_size, "unknown option: -%c", optopt);
            } else {
                snprintf(why, why_size, "unknown option: %s", argv[optind - 1]);
            }
            return -1;
        }
    }
    return cmdline_check(argc, argv, out, why, why_size);
}
