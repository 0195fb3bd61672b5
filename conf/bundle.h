/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle.h - a configuration and everything it names, as one sealed memfd.
 *
 * The master records what its conf_source gave while a conf was built, adds the slots it chose, and
 * sends the memfd to its children, which build the same conf from it and never open a file.
 * The monitor's bundle has no secrets. In the place of the text there is the effective long form,
 * without the texts that a row of the options calls secret, and so no variable of the environment
 * that the text names and no included file; of other files only those that are public, so no
 * private keys: the TLS of listeners is not built there, that of upstreams without certificates of
 * our own.
 */
#ifndef CONF_BUNDLE_H
#define CONF_BUNDLE_H

#include "conf/conf.h"

/* Record: wraps another source and remembers every answer that it gave. */
struct bundle_recorder;
struct bundle_recorder *
bundle_recorder_new(struct conf_source *from);
struct conf_source *
bundle_recorder_source(struct bundle_recorder *rec);
void
bundle_recorder_free(struct bundle_recorder *rec);

/* Make the sealed memfd: name and text of the file, recorded answers (with_keys: all that is secret
 * too), the slots of conf, its gen and hash. Returns the descriptor or -1. */
int
bundle_seal(struct bundle_recorder *rec, const char *name, struct slice text,
            const struct conf *conf, bool with_keys);

/* Build the conf from a bundle; takes no ownership of fd. Slots, gen and hash are those of the
 * bundle. NULL with errors filled as conf_load. A bundle whose framing is wrong is an error too. */
struct conf *
bundle_load(int fd, struct conf_errors *errors);

/* The parts of a bundle, for who builds the same file again with other addresses for its names: the
 * source gives what was recorded; wrap it, answer resolve anew, and record. Everything lives until
 * bundle_close(). NULL: the framing is wrong. */
struct bundle;
struct bundle *
bundle_open(int fd);
void
bundle_close(struct bundle *bundle);
const char *
bundle_name(const struct bundle *bundle);
const char *
bundle_folder(const struct bundle *bundle);
struct slice
bundle_text(const struct bundle *bundle);
struct conf_source *
bundle_source(struct bundle *bundle);
/* What was recorded of a name: the resolve of that source. */
int
bundle_resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out,
               int max);
/* The bytes of the i-th file, secret or not; false after the last one. */
bool
bundle_file(const struct bundle *bundle, unsigned i, struct slice *bytes);
/* The i-th name that was resolved, NULL after the last one. */
const char *
bundle_host(const struct bundle *bundle, unsigned i, uint16_t *port);

#endif
