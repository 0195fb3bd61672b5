/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h - the table of every key, and what is made of it.
 *
 * A row says which object a key belongs to, its type, default, range and help, and where in struct
 * conf its value goes. The parser, the defaults, -T, the JSON Schema and the manual page come from
 * the rows. Values that need more than their own text (names, addresses, files) are checked here
 * for their form, and given a meaning in conf_check.c and its neighbours.
 */
#ifndef CONF_OPTIONS_H
#define CONF_OPTIONS_H

#include "conf/node.h"
#include "conf/report.h"

/* The objects of the file. */
enum option_owner {
    OWN_TOP,
    OWN_METRICS,
    OWN_CONTROL,
    OWN_LOG,
    OWN_ACCESS_LOG,
    OWN_LISTENER,
    OWN_TLS,
    OWN_CERTIFICATE,
    OWN_LIMITS,
    OWN_LISTENER_TIMEOUTS,
    OWN_RATE_LIMIT,
    OWN_PAGE,
    OWN_ROUTE,
    OWN_MATCH,
    OWN_SHARE,
    OWN_REDIRECT,
    OWN_RESPOND,
    OWN_REWRITE,
    OWN_EDIT,
    OWN_UPSTREAM,
    OWN_BACKEND,
    OWN_HEALTH,
    OWN_KEEPALIVE,
    OWN_UPSTREAM_TIMEOUTS,
    OWN_UPSTREAM_TLS,
    OWN_BREAKER,
    OWN_QUEUE,
    OWN_RETRY,
    OWN_STICKY,
    OWN_BUDGET,
    OWN_BACKOFF,
    OWN_SHORT, /* keys of the short form that are called otherwise in the long one */
    OWN_COUNT
};

enum option_type {
    TYPE_BOOL,
    TYPE_COUNT,
    TYPE_WORKERS, /* a number or "auto" */
    TYPE_PORT,    /* a number, also as a string */
    TYPE_DURATION,
    TYPE_SIZE,
    TYPE_PERCENT,
    TYPE_WORD, /* one of row->words; stored as row->min for the first one, and so on */
    TYPE_NAME,
    TYPE_TEXT,
    TYPE_FILE,   /* a path in the file system */
    TYPE_TARGET, /* of a log: stderr, syslog, a path */
    TYPE_OCTAL,
    TYPE_HOST,    /* a host name or address without port */
    TYPE_PATTERN, /* exact host or *.suffix */
    TYPE_PREFIX,  /* a path of a URL */
    TYPE_REQUEST, /* a path of a URL, perhaps with a query */
    TYPE_METHOD,
    TYPE_STATUS, /* ranges of status codes */
    TYPE_ADDRESS,
    TYPE_BIND, /* an address, also :port */
    TYPE_CIDR,
    TYPE_IP,   /* an address without port */
    TYPE_PEER, /* a network, or "unix" */
    TYPE_RATE, /* "100/s", "6000/m": the number is microseconds between two */
    TYPE_KEY,  /* what tells requests apart: one of row->words, ":NAME" stands for a field's name */
    TYPE_OBJECT, /* row->object */
    TYPE_COUNT_OF_TYPES
};

#define OPT_REQUIRED 0x01
#define OPT_LIST     0x02 /* a list of such values */
#define OPT_ONE      0x04 /* ... or one, without the brackets */
#define OPT_MAP      0x08 /* an object whose keys are names */
#define OPT_NONEMPTY 0x10
#define OPT_FALSE    0x20   /* false or "off" in place of the object */
#define OPT_SHORT    0x40   /* stands at the top level of the short form too */
#define OPT_HTTP     0x80   /* of a health check: only with type http */
#define OPT_GRPC     0x200  /* ... or grpc */
#define OPT_POINTER  0x100  /* an object that may be absent: the struct has a pointer to it */
#define OPT_ANY_KEY  0x400  /* of a map: its keys are names of others, such as of fields */
#define OPT_PARTIAL  0x800  /* an object that changes another: what it lacks has no default */
#define OPT_SECRET   0x1000 /* a text that the monitor is not told */

struct option {
    enum option_owner owner;
    const char *key;
    enum option_type type;
    const char *fallback;   /* JSON text of the default; NULL: absent */
    uint64_t min, max;      /* numbers; lengths of texts */
    unsigned offset, width; /* where in the owner's struct; width 0: it is not stored */
    unsigned count_offset;  /* of a list of objects or of a map: where its length goes */
    unsigned flags;
    enum option_owner object;
    const char *shorthand; /* a string stands for an object (of a map: a member) with this key */
    const char *words;     /* "http|tcp" */
    const char *shown;     /* the default in words, where fallback does not say it */
    const char *help;
};

struct option_object {
    const char *title; /* in the schema and the manual */
    size_t size;       /* of the struct that a list or map of them consists of */
    const char *help;
};

extern const struct option option_table[];
extern const size_t option_table_len;
extern const struct option_object option_objects[OWN_COUNT];

const struct option *
option_find(enum option_owner owner, const char *key);

/* The table's key nearest to a misspelt one, NULL when none is near. is_short: among what may stand
 * at the top level of the short form. */
const char *
option_suggest(enum option_owner owner, const char *key, bool is_short);
bool
option_is_short(const struct option *row);

/* "a number from 1 to 256": what a row wants, for messages and documents. Returns buf. */
const char *
option_expected(const struct option *row, char *buf, size_t size);

/* What it takes to read a file's tree. */
struct option_reader {
    struct conf_arena *arena;
    struct report *report;
    const char *folder;     /* relative paths are relative to it */
    bool is_partial;        /* within an object that has no defaults */
    bool has_secret;        /* a row with OPT_SECRET was read */
    struct node **defaults; /* one a row, made when first asked for */
};
void
option_reader_init(struct option_reader *reader, struct conf_arena *arena, struct report *report,
                   const char *folder);

/* Read an object of the owner's kind: unknown keys are reported, defaults filled in, values
 * checked, made canonical in the tree (in the table's order) and stored in base. */
void
options_read(struct option_reader *reader, enum option_owner owner, struct node *object,
             void *base);

/* The same for what one row says of a member. base may be NULL where the row stores nothing. */
void
option_read_row(struct option_reader *reader, const struct option *row, struct node *node,
                void *base);

/* One value. Returns false when it is not what the row wants: *why then says it in words, or is
 * NULL when option_expected() says it all. */
struct option_value {
    uint64_t number;
    const char *text;
};
bool
option_read_value(struct option_reader *reader, const struct option *row, struct node *node,
                  struct option_value *value, const char **why);
bool
option_is_text(enum option_type type);
/* The same; what is wrong is reported. */
bool
option_read_one(struct option_reader *reader, const struct option *row, struct node *node,
                struct option_value *value);
/* A copy of the row's default, standing where the object stands that lacks it. */
struct node *
option_default(struct option_reader *reader, const struct option *row, struct node *object);

/* Durations and sizes as people write them. 0 or -1. */
int
option_duration_parse(const char *text, uint64_t *ms);
int
option_size_parse(const char *text, uint64_t *bytes);
/* The canonical form, with the greatest unit that divides. Returns buf. */
const char *
option_duration_format(char *buf, size_t size, uint64_t ms);
const char *
option_size_format(char *buf, size_t size, uint64_t bytes);
/* What a type expects, whatever the row; NULL: it depends on the row. */
const char *
option_type_expected(enum option_type type);

#endif
