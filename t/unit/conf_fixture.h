/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_fixture.h - load configurations from text, with a world of our own: two processors, 1,000
 * open files, three names, the variables HERE and EMPTY, one readable file.
 */
#ifndef T_UNIT_CONF_FIXTURE_H
#define T_UNIT_CONF_FIXTURE_H

#include "conf/conf.h"

struct conf_source *
fixture_source(void);

/* Load as /etc/akashd/test.json; the errors are kept until fixture_free(). */
struct conf *
fixture_load(const char *text);
struct conf *
fixture_load_from(const char *text, struct conf_source *src);
/* Load and expect it to be well. */
struct conf *
fixture_must_load(const char *text);
/* Load and expect exactly these errors, without the file's name before them; NULL ends. */
void
fixture_expect_errors(const char *text, ...);
const struct conf_errors *
fixture_errors(void);
/* What -T prints; freed by the caller. */
char *
fixture_print(const struct conf *conf);
void
fixture_free(struct conf *conf);

#endif
