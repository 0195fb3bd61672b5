/* SPDX-License-Identifier: Apache-2.0
 *
 * node.h - the configuration file as a tree that knows where each value stood.
 *
 * The scanner makes it. conf_short.c rearranges it (the short form becomes the long one), the
 * option table completes it with defaults and writes every value in its canonical form; then the
 * tree is what -T prints. A moved node keeps its place and its path in the file, so that messages
 * speak of what the operator wrote.
 */
#ifndef CONF_NODE_H
#define CONF_NODE_H

#include <stdint.h>
#include <stdio.h>

#include "conf/arena.h"

/* A file that the configuration includes: include.c. */
struct included {
    const char *name;   /* as messages write it */
    const char *path;   /* absolute */
    const char *folder; /* absolute; relative paths in the file are relative to it */
    unsigned order;     /* 1 for the first one that was read */
};

/* 1-based; columns count bytes. line 0: nowhere. file NULL: the file that was loaded. */
struct place {
    unsigned line, column;
    const struct included *file;
};

enum node_kind {
    NODE_NULL,
    NODE_BOOL,
    NODE_NUMBER, /* an integer */
    NODE_REAL,   /* with a fraction or an exponent, or beyond 64 bits */
    NODE_STRING,
    NODE_LIST,
    NODE_OBJECT
};

struct node {
    enum node_kind kind;
    struct place key_at, at;
    struct node *home;  /* what it stood in, in the file; NULL: the root, or made by us */
    const char *key;    /* in the file; NULL: an element of a list */
    unsigned index;     /* of a list's element in the file */
    const char *name;   /* in the tree as it is now; NULL in a list */
    struct node *first; /* children; the count-th is last */
    struct node *last, *next;
    unsigned count;
    bool is_default; /* not from the file */
    bool is_bad;     /* an error was reported: later checks pass it by */
    bool is_secret;  /* a text that node_print_public() does not print */
    union {
        bool yes;
        int64_t number;
        double real;
        const char *text;
    };
};

struct node *
node_new(struct conf_arena *arena, enum node_kind kind, const char *name);
struct node *
node_new_text(struct conf_arena *arena, const char *name, const char *text);
struct node *
node_new_number(struct conf_arena *arena, const char *name, int64_t number);
/* A copy that shares its children. */
struct node *
node_copy(struct conf_arena *arena, const struct node *node);
/* A deep copy. */
struct node *
node_clone(struct conf_arena *arena, const struct node *node);

/* A deep copy of base with the members of over in place of its own; objects within are merged
 * alike.
 */
struct node *
node_merge(struct conf_arena *arena, const struct node *base, const struct node *over);

void
node_append(struct node *parent, struct node *child);
/* Unlink; node may stand anywhere in parent. */
void
node_remove(struct node *parent, struct node *child);
/* The child of that name; NULL: none, or parent is NULL or no object. */
struct node *
node_get(const struct node *parent, const char *name);
/* The text of a string that is well; NULL when there is none. */
const char *
node_text(const struct node *parent, const char *name);
/* Turn into a string or a number: the canonical form of what was read. */
void
node_set_text(struct node *node, const char *text);
void
node_set_number(struct node *node, int64_t number);

/* Set place, key and home of what we made, so that messages point at the node of the file it
 * comes from. */
void
node_stand_at(struct node *made, const struct node *origin);

/* "Backends[1].weight"; with key: of that member of node. Returns buf. */
const char *
node_path(const struct node *node, const char *key, char *buf, size_t size);

/* Write the tree as JSON, two spaces a level, "${" escaped in values. */
void
node_print(const struct node *node, FILE *out);
/* The same with another text for every secret: as long as any may have to be, and no reference to
 * the environment. */
void
node_print_public(const struct node *node, FILE *out);

#endif
