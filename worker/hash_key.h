/* SPDX-License-Identifier: Apache-2.0
 *
 * hash_key.h - what of a request decides where algorithm hash sends it. Pure.
 */
#ifndef WORKER_HASH_KEY_H
#define WORKER_HASH_KEY_H

#include "conf/conf.h"
#include "shared/http.h"

/* req may be NULL (tcp). What the request does not have is replaced by the client's address. */
uint64_t
hash_key_of(const struct conf_upstream *up, const struct http_msg *req,
            const struct addr_ip *client);

/* The value of a cookie in all Cookie fields (RFC 6265 4.2.1), of a parameter in the query as it
 * stands. False: there is none. */
bool
hash_key_cookie(const struct http_msg *req, struct slice name, struct slice *value);
bool
hash_key_query(const struct http_msg *req, struct slice name, struct slice *value);

#endif
