/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle_format.h - what bundle.c writes and bundle_read.c reads.
 *
 * Numbers have 64 bits in the machine's own order: both ends are processes of one binary. Strings
 * and blocks are a 32-bit length, the bytes, and a NUL that the length does not count. Whoever
 * reads trusts no length.
 *
 *   magic, with_keys, gen, hash, processors, open files
 *   name, folder, text
 *   answers: kind, question, number, is_there, bytes ... ANSWER_END
 *   slots: of listeners, of pools, of backends, each a count and numbers
 */
#ifndef CONF_BUNDLE_FORMAT_H
#define CONF_BUNDLE_FORMAT_H

#include "conf/bundle.h"

#define BUNDLE_MAGIC 0x31646e7562616b61ull /* "akabund1" */

enum answer_kind {
    ANSWER_END,
    ANSWER_FILE,
    ANSWER_NAME,
    ANSWER_ENV,
    ANSWER_PUBLIC,
    ANSWER_WEIGHT,
    ANSWER_LIST
};

/* ANSWER_PUBLIC is a file without secrets: it goes into every bundle, as names and weights do;
 * ANSWER_FILE, ANSWER_LIST and ANSWER_ENV (but for CONF_CA_VARIABLE) only with_keys.
 *
 * One question that a source was asked, and what it said. */
struct answer {
    struct answer *next;
    enum answer_kind kind;
    const char *question; /* path, name of a host, of a variable, upstream/backend, pattern */
    uint32_t number;      /* port; for a weight 0 */
    bool is_there;
    struct slice bytes; /* file; addresses; value; paths; why not */
};

#endif
