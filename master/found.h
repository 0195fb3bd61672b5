/* SPDX-License-Identifier: Apache-2.0
 *
 * found.h - addresses of names, as processes tell each other: pure.
 *
 * Whoever looked a name up has read bytes of strangers. The master takes from it nothing but the
 * texts that are parsed here, strictly: addresses that a connection can be made to.
 */
#ifndef MASTER_FOUND_H
#define MASTER_FOUND_H

#include "conf/conf.h"

#define FOUND_LINE_MAX   96 /* of found_format, with NUL */
#define FOUND_HOST_MAX   256
#define FOUND_ANSWER_MAX (FOUND_HOST_MAX + 8 + CONF_FOUND_MAX * FOUND_LINE_MAX)

/* "IP PORT PRIORITY WEIGHT"; the numbers are 0 where no SRV record gave them. Returns the length.
 */
size_t
found_format(const struct conf_found *found, char buf[FOUND_LINE_MAX]);
/* 0, or -1: not such a line, or not of an address that a backend can have. */
int
found_parse(struct slice line, bool is_srv, struct conf_found *found);
/* No backend has the addresses 0.0.0.0 and ::, multicast or broadcast. */
bool
found_is_usable(const struct addr_ip *ip);

/* The addresses that a name has now. */
struct found_answer {
    struct slice host;
    bool is_srv;
    struct conf_found found[CONF_FOUND_MAX]; /* sorted, no two alike */
    unsigned n;
};
/* "NAME\n" or "srv:NAME\n", then a line for each address. Returns the length. */
size_t
found_answer_format(const char *host, bool is_srv, const struct conf_found *found, unsigned n,
                    char buf[FOUND_ANSWER_MAX]);
/* 0 or -1. host points into text. At least one address, at most CONF_FOUND_MAX. */
int
found_answer_parse(struct slice text, struct found_answer *answer);

bool
found_same(const struct conf_found *a, unsigned na, const struct conf_found *b, unsigned nb);
/* "+ 10.0.0.3, - 10.0.0.1": what is new in b, and what of a is not in it. */
void
found_describe(const struct conf_found *a, unsigned na, const struct conf_found *b, unsigned nb,
               char *buf, size_t size);

/* Is this DNS message a response (RFC 1035 4.1.1, QR), and not a question that came back? */
bool
found_is_response(const unsigned char *message, size_t len);
/* The least time to live, in seconds, of the records in the answer section of a DNS message (RFC
 * 1035 4.1). 0, or -1: it is cut short or has no such record. */
int
found_least_ttl(const unsigned char *message, size_t len, uint32_t *ttl_s);

#endif
