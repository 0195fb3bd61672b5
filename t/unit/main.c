/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - run every unit test, or the suites named as arguments.
 */
#include <stdlib.h>
#include <string.h>

#include "t/unit/suites.h"

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define SUITE_ROW(name) { #name, name##_suite },
    UNIT_SUITES(SUITE_ROW)
#undef SUITE_ROW
    { NULL, NULL },
};

static int
is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return 1;
        }
    }
    return argc == 1;
}

int
main(int argc, char **argv)
{
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; suites[i].name; i++) {
        if (is_wanted(suites[i].name, argc, argv)) {
            srunner_add_suite(runner, suites[i].make());
        }
    }
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
