/* SPDX-License-Identifier: Apache-2.0
 *
 * generation.h - one configuration as the master holds it: the conf, its bundles and its log files;
 * and how it is loaded.
 *
 * Loading reads the file and builds the conf at once when it holds no name. Else the names are
 * looked up by the resolver's child, while the loop turns, and the conf is built a second time.
 */
#ifndef MASTER_GENERATION_H
#define MASTER_GENERATION_H

#include <event2/event.h>

#include "conf/bundle.h"
#include "conf/conf.h"
#include "master/identity.h"
#include "master/logs.h"

struct generation {
    struct conf *conf;
    int bundle;        /* descriptor; -1 before generation_seal */
    int public_bundle; /* the monitor's: without private keys */
    struct logs logs;
    /* what the bundles are made of; NULL after generation_seal */
    struct bundle_recorder *recorder;
    struct conf_source *source;
    struct bundle *former; /* loaded again from it */
    char *name;
    char *text;
    size_t text_len;
};

/* Where the configuration's text is. */
struct generation_origin {
    const char *path; /* read anew at each load; also the name in messages */
    const char *text; /* not NULL: this, and nothing is read; path is only its name */
};

struct load;
/* gen->conf is NULL when the configuration is wrong: errors says why, whose owner is the loader.
 * Called once; may be called before load_start returns. */
typedef void
load_done(struct generation *gen, const struct conf_errors *errors, void *arg);

/* user and group of the new file are what the resolver's child becomes. NULL when done has been
 * called already. */
struct load *
load_start(const struct generation_origin *origin, struct event_base *base, load_done *done,
           void *arg);
void
load_cancel(struct load *load);

/* Build again what is in force, from its bundle: nothing is read, no name is looked up; only what
 * operators said and the addresses of names (names.h) may differ. gen->conf is NULL when that
 * failed. */
void
load_again(const struct generation *now, struct generation *gen, struct conf_errors *errors);

/* The same without a loop or a child: for -t and -T. Names are looked up here. */
void
load_here(const struct generation_origin *origin, struct generation *gen,
          struct conf_errors *errors);

/* One error a line. */
void
generation_join_errors(const struct conf_errors *errors, char *buf, size_t size);

/* Give it its number and make the bundles; the conf has its slots by now. 0 or -1 with why. */
int
generation_seal(struct generation *gen, uint64_t number, char *why, size_t why_size);

void
generation_init(struct generation *gen);
void
generation_fini(struct generation *gen);

#endif
