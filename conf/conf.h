/* SPDX-License-Identifier: Apache-2.0
 *
 * conf.h - the configuration as an immutable snapshot.
 *
 * conf_load() goes over the file's text once: scanner (positions, comments), json-c, option table,
 * checks. What the file names (certificates, keys, addresses of names) comes from a struct
 * conf_source, so that the master, which reads the disk, and its children, which read a bundle,
 * build the same conf by the same code. Nothing here changes after conf_load() except the slots,
 * which are given once, and the reference count.
 *
 * Durations are milliseconds, sizes bytes. All strings are NUL-terminated and owned by the conf.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/addr.h"
#include "shared/breaker.h"
#include "shared/list.h"
#include "shared/log.h"
#include "shared/rate.h"
#include "shared/slice.h"
#include "shared/tls.h"
#include "shared/tls_client.h"

enum conf_mode { CONF_HTTP, CONF_TCP };
enum conf_algorithm {
    CONF_ROUND_ROBIN,
    CONF_W_ROUND_ROBIN,
    CONF_LEAST_CONN,
    CONF_IP_HASH,
    CONF_RANDOM_TWO,
    CONF_EWMA,
    CONF_HASH
};
enum conf_protocol { CONF_HTTP1, CONF_H2 };
enum conf_client_auth { CONF_AUTH_OFF, CONF_AUTH_OPTIONAL, CONF_AUTH_REQUIRE };
enum conf_health_type { CONF_HEALTH_OFF, CONF_HEALTH_TCP, CONF_HEALTH_HTTP, CONF_HEALTH_GRPC };
enum conf_key_kind {
    CONF_KEY_CLIENT_IP,
    CONF_KEY_URI,
    CONF_KEY_PATH,
    CONF_KEY_HEADER,
    CONF_KEY_COOKIE,
    CONF_KEY_QUERY
};
#define CONF_WEIGHT_MAX 256

enum conf_state { CONF_READY, CONF_DRAIN, CONF_MAINT };
enum conf_access_format { CONF_ACCESS_COMBINED, CONF_ACCESS_JSON, CONF_ACCESS_TCP };

/* Timeouts of a listener and of an upstream, milliseconds; 0 is none. */
struct conf_listener_timeouts {
    uint32_t handshake, header, request_body, idle, send, tunnel;
};
struct conf_upstream_timeouts {
    uint32_t connect, queue, response, response_body, send, tunnel, total;
};

/* A file that the configuration names. Its bytes are not kept: tls_server has what it needs. */
struct conf_file {
    const char *path; /* absolute; NULL: none */
};

struct conf_tls {
    struct conf_cert {
        struct conf_file cert;
        struct conf_file key;
    } * certs;
    unsigned ncerts;
    unsigned min_version;                        /* 0x0303 or 0x0304 as in TLS */
    const char *ciphers, *ciphersuites, *curves; /* NULL: the defaults of tls.c */
    char **alpn;                                 /* NULL-terminated; empty list: no ALPN */
    enum conf_client_auth client_auth;
    struct conf_file client_ca; /* path NULL: none */
    bool strict_sni;
    bool tickets;
    struct tls_server
        *server; /* shared/tls.h; a reference; NULL when built without keys (monitor) */
};

/* How many requests with the same key may come. */
struct conf_rate_limit {
    const char *name;
    unsigned slot; /* in the segment: limits of one name share it */
    struct rate rate;
    const char *key;     /* as in the file */
    struct slice header; /* whose value tells clients apart; empty: their address does */
    uint8_t ipv6_prefix;
    uint16_t status;
    bool dry_run;
    struct cidr *exempt;
    unsigned nexempt;
};

/* What is answered for some statuses in place of a short text: conf/page.h. */
enum conf_page_word { CONF_PAGE_END, CONF_PAGE_STATUS, CONF_PAGE_REASON, CONF_PAGE_REQUEST_ID };
struct conf_page {
    const char *file, *body, *type; /* file or body is NULL */
    uint16_t from, to;              /* statuses, inclusive */
    struct conf_page_piece {
        struct slice text;
        enum conf_page_word then; /* what stands behind the text; END: nothing, it was the last */
    } * pieces;
    unsigned npieces;
};

struct conf_listener {
    const char *name;
    unsigned slot; /* in the segment */
    enum conf_mode mode;
    struct addr *addrs; /* what to bind */
    char **addr_texts;  /* canonical text of each: its identity over reloads */
    unsigned naddrs;
    struct conf_upstream *upstream; /* tcp: required; http: the last route; may be NULL in http */
    struct conf_tls *tls;           /* NULL: cleartext */
    uint32_t max_connections;       /* 0: none of its own */
    bool forwarded_headers;
    struct cidr *accept_proxy; /* whose PROXY header is required; AF_UNIX: peers of Unix sockets */
    unsigned naccept_proxy;
    struct cidr *trusted_proxies;
    unsigned ntrusted_proxies;
    struct conf_rate_limit *rate_limit; /* NULL: none */
    uint32_t backlog;
    uint32_t header_bytes, header_count;
    uint64_t body_bytes;              /* 0: none */
    uint32_t requests_per_connection; /* 0: any number */
    uint32_t requests_in_flight;      /* over all workers; 0: any number */
    uint32_t connections_per_client;  /* of one address, over all workers; 0: any number */
    uint32_t max_age_ms;
    bool http2;
    uint32_t http2_streams; /* at one time on a connection */
    struct conf_listener_timeouts timeouts;
    struct conf_page *pages; /* http */
    unsigned npages;
    /* The routes that apply here, ordered; conf/router.h. tcp: by the server name of TLS that is
     * passed through; NULL: there are none. */
    struct conf_router *router;
};

/* TLS towards the backends of an upstream. */
struct conf_upstream_tls {
    bool verify;
    struct conf_file ca;        /* path NULL: the system's */
    const char *server_name;    /* NULL: the host of each backend's address */
    struct conf_file cert, key; /* to show; path NULL: none */
    unsigned min_version;       /* 0x0303 or 0x0304 */
    struct tls_client *client;  /* shared/tls_client.h; a reference. The monitor's has no
                                   certificate to show */
};

struct conf_backend {
    const char *id;      /* as in labels: its address, or the id given; "name:port@address" for one
                            address of a name, "srv:name@address:port" of SRV records */
    const char *address; /* as in the file */
    struct addr addr;
    unsigned slot;
    unsigned weight;      /* 1..256; in force: the operator's, else that of the file */
    unsigned file_weight; /* as in the file */
    uint32_t max_connections;
    enum conf_state state;
    bool backup;  /* only when no other is usable */
    char **paths; /* NULL-terminated, NULL: none */
    struct conf_upstream *upstream;
    unsigned index;         /* in its upstream */
    struct addr check_addr; /* where the health check goes */
    uint64_t sticky_tag;    /* that stands for it in cookies: shared/sticky.h */
    const char *tls_name;   /* that its certificate must have; NULL: none, or no TLS */
};

/* A set of backends that share requests with one cursor: the whole upstream, or those that list a
 * path. */
struct conf_pool {
    struct conf_upstream *upstream;
    unsigned slot;  /* of its cursor in the segment */
    const char *id; /* "default", "default:/api" */
    struct conf_backend **backends;
    unsigned nbackends;
    uint16_t *schedule; /* indexes into backends: smooth weighted order, weights divided by their
                           gcd; conf/schedule.h */
    unsigned schedule_len;
    uint16_t *table; /* hash: conf/maglev.h; else NULL */
    unsigned table_len;
    struct conf_pool *backups; /* tried when none of its own is usable; shares its cursor; NULL:
                                  none */
};

struct conf_health {
    enum conf_health_type type;
    const char *path, *host, *method, *body; /* http; body NULL: any. grpc: path is '/' and the
                                                service, host the authority */
    uint16_t port;                           /* 0: the backend's own */
    uint32_t interval, timeout, jitter_percent;
    unsigned rise, fall;
    /* expect: status ranges, inclusive */
    struct conf_range {
        uint16_t from, to;
    } * expect;
    unsigned nexpect;
};

/* What is retried: conf_retry.on. */
#define CONF_RETRY_CONNECT 0x01
#define CONF_RETRY_RESET   0x02
#define CONF_RETRY_TIMEOUT 0x04
#define CONF_RETRY_502     0x08
#define CONF_RETRY_503     0x10
#define CONF_RETRY_504     0x20

struct conf_retry {
    uint32_t attempts; /* after the first */
    unsigned on;       /* CONF_RETRY_* */
    char **methods;    /* NULL-terminated */
    struct conf_budget {
        uint32_t percent, min_per_second;
    } budget;
    struct conf_backoff {
        uint32_t base, max;
    } backoff;
    uint32_t per_try_timeout;
};

/* How long what may take, and what is tried again: an upstream's, or a route's to it. */
struct conf_policy {
    struct conf_upstream_timeouts timeouts;
    struct conf_retry *retry; /* NULL: none */
};

struct conf_sticky {
    const char *cookie, *secret, *path;
    uint64_t ttl; /* ms; 0: none */
    bool secure;
};

struct conf_upstream {
    const char *name;
    unsigned slot;
    struct conf_upstream_tls *tls; /* NULL: cleartext */
    enum conf_algorithm algorithm;
    enum conf_protocol protocol; /* http */
    const char *hash_key;        /* as in the file */
    enum conf_key_kind hash_kind;
    struct slice hash_name; /* of the field, cookie or parameter */
    uint32_t slow_start_ms;
    struct breaker_rules *breaker; /* NULL: none */
    struct conf_policy policy;
    bool fail_open;
    uint32_t queue_size; /* 0: no queue */
    uint32_t max_connections;
    struct conf_backend *backends;
    unsigned nbackends;
    struct conf_pool *pools; /* pools[0] is used when no path matches; see conf_upstream_pool */
    char **pool_paths;       /* pools[i + 1] serves pool_paths[i] */
    unsigned npools;
    struct path_set *pool_set; /* path -> number of its pool; NULL: there is one pool */
    struct conf_health health;
    struct conf_keepalive {
        uint32_t connections, idle, requests, lifetime;
    } keepalive;
    uint8_t send_proxy;         /* 0: no; version of the PROXY protocol */
    struct conf_sticky *sticky; /* NULL: none */
    struct conf_local {
        struct addr_ip *addrs;
        unsigned count;
    } source; /* that connections to the backends come from */
};

/* A condition on the value of a field or of a parameter of the query. */
enum conf_match_kind {
    CONF_MATCH_EXACT,
    CONF_MATCH_PREFIX,
    CONF_MATCH_SUFFIX,
    CONF_MATCH_REGEX,
    CONF_MATCH_PRESENT
};
struct conf_match {
    const char *name;
    const char *exact, *prefix, *suffix, *regex; /* as in the file: one of them, or present */
    bool present;
    enum conf_match_kind kind;
    struct slice text;
    struct pattern *pattern; /* conf/pattern.h */
};

struct conf_pair {
    const char *name, *value;
};
/* Changes of a message's fields: remove, then set, then add. */
struct conf_edit {
    struct conf_pair *set, *add;
    unsigned nset, nadd;
    char **remove; /* NULL: none; else NULL-terminated */
};

struct conf_share {
    const char *name;
    struct conf_upstream *upstream;
    const struct conf_policy *policy; /* of the route, else of the upstream */
    uint32_t weight;
};

enum conf_scheme { CONF_SCHEME_SAME, CONF_SCHEME_HTTP, CONF_SCHEME_HTTPS };

struct conf_route {
    char **listeners; /* NULL: all; else NULL-terminated */
    const char *host; /* lower case; NULL: any; "*.suffix" */
    const char *path; /* prefix by segments; NULL: none */
    const char *path_exact;
    const char *path_regex;
    struct pattern *path_pattern; /* of path_regex; NULL: none */
    char **methods;               /* NULL: any; else NULL-terminated */
    struct conf_match *headers, *query;
    unsigned nheaders, nquery;
    /* One of these is what becomes of the request. */
    struct conf_upstream *upstream;
    const struct conf_policy *policy; /* of the route, else of the upstream; NULL as upstream is */
    struct conf_split {
        struct conf_share *shares; /* NULL: none */
        unsigned nshares;
        uint16_t *schedule; /* indexes into shares; conf/schedule.h */
        unsigned schedule_len;
        unsigned slot;  /* of its cursor in the segment, among those of pools */
        const char *id; /* of that slot */
    } split;
    struct conf_redirect {
        enum conf_scheme scheme;
        const char *host, *path; /* NULL: the request's own */
        uint16_t status;
    } * redirect;
    struct conf_respond {
        uint16_t status;
        const char *body;
    } * respond;
    struct conf_rewrite {
        const char *path_prefix, *host; /* NULL: as it is */
    } * rewrite;
    struct conf_edit *request_headers, *response_headers; /* NULL: none */
    struct cidr *allow, *deny;
    unsigned nallow, ndeny;
    struct conf_rate_limit *rate_limit; /* NULL: none */
};

/* One address of a name. priority, weight and the address's port are those of an SRV record; for a
 * name that has none, priority and weight are 0. Bytes between members are 0: it is copied and
 * compared as it lies. */
#define CONF_FOUND_MAX 64 /* of one name */
struct conf_found {
    struct addr addr;
    uint16_t priority, weight;
};

/* A name that stands for backends, with the addresses it had when the conf was built: sorted, no
 * two alike, without port unless is_srv. */
#define CONF_NAMES_MAX 4096
struct conf_name {
    const char *host;
    bool is_srv;
    struct conf_found *found;
    unsigned nfound;
};

struct conf_log {
    enum log_level level;
    const char *target; /* "stderr", "syslog" or an absolute path */
    enum log_format format;
};

struct conf {
    struct list alive; /* all confs of this process: conf_alive */
    uint32_t refs;     /* of this process; conf_ref, conf_unref */
    uint64_t gen;      /* given by the master at each load */
    uint64_t hash; /* first 48 bits of a digest of the effective configuration and of the files it
                      names */
    const char *path; /* of the file */
    unsigned workers; /* resolved: "auto" is a number here */
    bool workers_auto;
    const char *user, *group; /* NULL: the default */
    uint32_t max_connections; /* resolved */
    bool has_metrics, metrics_given;
    struct addr metrics;
    struct cidr *metrics_allow;
    unsigned nmetrics_allow;
    struct {
        const char *path; /* NULL: none */
        unsigned mode;
        const char *group; /* NULL: root's */
        bool given;
    } control;
    const char *pid_file; /* NULL: none */
    struct conf_log log;
    struct {
        const char *target; /* NULL: off; "stderr", "syslog" or an absolute path */
        enum conf_access_format format;
    } access_log;
    uint32_t drain_timeout, lame_duck, retire_timeout;
    struct addr *resolvers; /* name servers to ask; none: those of /etc/resolv.conf */
    unsigned nresolvers;
    struct conf_name *names; /* of backends, each once */
    unsigned nnames;
    struct conf_listener *listeners;
    unsigned nlisteners;
    struct conf_upstream *upstreams;
    unsigned nupstreams;
    struct conf_route *routes;
    unsigned nroutes;
    struct conf_rate_limit **rate_limits; /* of listeners and routes */
    unsigned nrate_limits;
    struct conf_arena *arena; /* owns all of the above; conf.c */
    const char *json;         /* the text of the effective long form: what -T prints */
    const char *public_json;  /* the same without secrets */
};

/* The variable of the environment that names the file of the authorities that the system trusts. */
#define CONF_CA_VARIABLE "SSL_CERT_FILE"

/* What of the machine a configuration depends on. */
struct conf_machine {
    unsigned processors; /* of the affinity mask, at most the cgroup quota */
    uint64_t open_files; /* hard limit of one process */
};

#define CONF_INCLUDE_MAX 1024 /* included files */

/* Where the bytes and addresses that a configuration names come from. read_file and resolve must be
 * given; where another is NULL the process itself is asked (accounts: nothing is). */
struct conf_source {
    /* The file's content, valid as long as the source. 0, or -1 with why (at most why_size bytes).
     */
    int (*read_file)(struct conf_source *src, const char *path, struct slice *out, char *why,
                     size_t why_size);
    /* The same for a file without secrets, which the monitor has too. NULL: read_file. */
    int (*read_public)(struct conf_source *src, const char *path, struct slice *out, char *why,
                       size_t why_size);
    /* The files that a pattern of glob(3), an absolute path, matches: their paths one after the
     * other in the order of their bytes, a NUL behind each; valid as long as the source. At most
     * CONF_INCLUDE_MAX. 0, or -1 with why. NULL: there is nothing to look into. */
    int (*list_files)(struct conf_source *src, const char *pattern, struct slice *out, char *why,
                      size_t why_size);
    /* The addresses of a name, of its SRV records where port is 0. Returns how many (at most max),
     * 0 when it does not resolve. */
    int (*resolve)(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out,
                   int max);
    void (*machine)(struct conf_source *src, struct conf_machine *out);
    /* A variable of the environment; NULL: not set. */
    const char *(*env)(struct conf_source *src, const char *name);
    bool (*has_account)(struct conf_source *src, const char *name, bool is_group);
    /* The weight that an operator has given a backend, in place of the file's; 0: none. */
    unsigned (*weight)(struct conf_source *src, const char *upstream, const char *backend);
    bool without_keys; /* no secret file can be read: conf_tls.server stays NULL (the monitor), and
                          without read_public conf_upstream_tls.client as well */
};

/* The machine as this process sees it; what a NULL machine means. */
void
conf_machine_read(struct conf_machine *out);

/* Errors and warnings, in the order of their places; one rendered text each, "file:line:column:
 * path: what". */
struct conf_errors {
    char **errors;
    unsigned nerrors;
    char **warnings;
    unsigned nwarnings;
};
void
conf_errors_fini(struct conf_errors *errors);

/* Build a conf from text. name is the file's name as messages write it (absolute path or as given);
 * relative paths in it are relative to its folder. NULL with errors filled when anything is wrong;
 * on success warnings may be filled. The new conf has one reference. */
struct conf *
conf_load(const char *name, struct slice text, struct conf_source *src, struct conf_errors *errors);
/* The same with the folder (absolute) that relative paths are relative to. */
struct conf *
conf_load_from(const char *name, const char *folder, struct slice text, struct conf_source *src,
               struct conf_errors *errors);
struct conf *
conf_ref(struct conf *conf);
void
conf_unref(struct conf *conf);
/* How many confs of this process are alive; *oldest_gen becomes the least gen among them. */
unsigned
conf_alive(uint64_t *oldest_gen);

/* The pool for an (already normalised) path: the longest path prefix by whole segments. Never NULL.
 */
struct conf_pool *
conf_upstream_pool(struct conf_upstream *up, struct slice path);

/* The name of backends that is spelled so; NULL: there is none. */
struct conf_name *
conf_name_find(const struct conf *conf, struct slice host, bool is_srv);
/* Sort, and drop what stands for the same address and port as another. How many are left. */
unsigned
conf_found_sort(struct conf_found *found, unsigned n);

/* -T: the effective configuration in the long form, every default written out; a valid file, and a
 * fixed point. */
void
conf_print(const struct conf *conf, FILE *out);
/* --print-schema, --print-manual: from the option table alone. */
void
conf_print_schema(FILE *out);
void
conf_print_manual(FILE *out);

/* Reads the disk. It asks no name server: a name has no address there. */
struct conf_source *
conf_source_disk(void);
void
conf_source_disk_free(struct conf_source *src);

#endif
