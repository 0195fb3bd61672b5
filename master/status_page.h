/* SPDX-License-Identifier: Apache-2.0
 *
 * status_page.h - the page for people on the metrics port: one text, without anything from outside.
 *
 * Its parts are files (master/status_page/), which the build puts into the binary. Its policy
 * (Content-Security-Policy, CSP 3) admits its own style and script by their hashes, and nothing
 * else.
 */
#ifndef MASTER_STATUS_PAGE_H
#define MASTER_STATUS_PAGE_H

#include <stddef.h>

/* The page, for the caller to free, and the fields that go with it, each line with CRLF, which
 * stay. NULL without memory. */
char *
status_page_make(size_t *len, const char **fields);

#endif
