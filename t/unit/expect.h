/* SPDX-License-Identifier: Apache-2.0
 *
 * expect.h - what more than one suite expects of texts.
 */
#ifndef T_UNIT_EXPECT_H
#define T_UNIT_EXPECT_H

#include <check.h>
#include <regex.h>

/* An extended regular expression. */
static inline void
expect_match(const char *subject, const char *pattern)
{
    regex_t re;
    ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    ck_assert_msg(regexec(&re, subject, 0, NULL, 0) == 0, "'%s' is not '%s'", subject, pattern);
    regfree(&re);
}

#endif
