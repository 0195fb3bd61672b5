/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - the table of every key.
 *
 * To add an option: one row here, one member in conf.h.
 */
#include "conf/options.h"

#include <stddef.h>

#include "conf/pattern.h"
#include "shared/shm.h"

#define IN(type, member) \
    .offset = (unsigned)offsetof(struct type, member), \
    .width = (unsigned)sizeof(((struct type *)0)->member)
#define LIST_IN(type, member, count) IN(type, member), .count_offset = offsetof(struct type, count)

#define SECOND 1000ull
#define DAY    (24 * 3600 * SECOND)
#define MONTH  (30 * DAY)
#define KB     1024ull
#define GB     (1024 * 1024 * KB)
#define ANY32  UINT32_MAX

#define ALGORITHMS "round_robin|w_round_robin|least_conn|ip_hash|random_two|ewma|hash"

#define ALGORITHM_HELP \
    "How backends are chosen. round_robin and w_round_robin give each its share by weight, evenly " \
    "spread; least_conn takes the one with the fewest requests in flight for its weight; ip_hash " \
    "keeps a client's address on one backend and moves only the clients of a backend that went " \
    "away; random_two draws two and takes the one with less in flight; ewma takes the least of " \
    "latency (a peak that decays) times requests in flight; hash keeps each hash_key on one " \
    "backend (Maglev, with bounded load), chosen alike by any number of machines with the same " \
    "ids and weights."

#define INCLUDE_HELP \
    "Further files that are merged into this one: paths, relative to this file's folder, in which " \
    "*, ? and [...] stand for parts of names (glob(7)). The files of a pattern come in the order of " \
    "the bytes of their names; one that comes again is passed by. Each is an object of the long " \
    "form; it cannot include others. Its listeners and routes follow those that came before, its " \
    "upstreams are added; any other key, and each name of an upstream, may be given in one file " \
    "only. Relative paths in it are relative to its own folder. A pattern may match nothing; a " \
    "path without wildcard must be there. At most 1024 files of 1 MB each, 16 MB in all. A file " \
    "that cannot be read ends the check, as a syntax error does."

/* clang-format off */
const struct option option_table[] = {
    /* ---- top level ---- */
    {OWN_TOP, "include", TYPE_TEXT, NULL, 1, 4095, .flags = OPT_LIST | OPT_ONE,
     .help = INCLUDE_HELP},
    {OWN_TOP, "workers", TYPE_WORKERS, "\"auto\"", 1, SHM_WORKERS, IN(conf, workers),
     .help = "Worker processes. auto: the processors of the affinity mask, at most the quota of the "
             "control group."},
    {OWN_TOP, "user", TYPE_NAME, NULL, 1, 32, IN(conf, user),
     .shown = "akashd, or nobody where that user does not exist",
     .help = "User of workers and monitor when started as root."},
    {OWN_TOP, "group", TYPE_NAME, NULL, 1, 32, IN(conf, group), .shown = "the group of the user",
     .help = "Group of workers and monitor when started as root."},
    {OWN_TOP, "max_connections", TYPE_COUNT, "0", 1, ANY32, IN(conf, max_connections),
     .shown = "half of the open files of all workers, the greatest value there is",
     .help = "Client connections at one time over all workers, exactly. A client and its backend "
             "take a descriptor each, so the files that all workers may open carry half as many."},
    {OWN_TOP, "metrics", TYPE_OBJECT, "{}", .flags = OPT_FALSE, .object = OWN_METRICS,
     .shorthand = "address",
     .help = "Where /metrics, /livez, /readyz and the status page are served. false: nowhere."},
    {OWN_TOP, "control_socket", TYPE_OBJECT, "{}", .object = OWN_CONTROL, .shorthand = "path",
     .help = "The socket that akashctl speaks to. Where the default's folder cannot be made there "
             "is none, with a warning."},
    {OWN_TOP, "pid_file", TYPE_FILE, NULL, 1, 4095, IN(conf, pid_file),
     .help = "Holds the process id of the master."},
    {OWN_TOP, "log", TYPE_OBJECT, "{}", IN(conf, log), .object = OWN_LOG, .help = "The error log."},
    {OWN_TOP, "access_log", TYPE_OBJECT, "false", .flags = OPT_FALSE, .object = OWN_ACCESS_LOG,
     .shorthand = "target", .help = "One line for each request or TCP stream. false: none."},
    {OWN_TOP, "drain_timeout", TYPE_DURATION, "\"30s\"", 0, MONTH, IN(conf, drain_timeout),
     .help = "What a shutdown waits for running requests and streams."},
    {OWN_TOP, "lame_duck", TYPE_DURATION, "0", 0, DAY, IN(conf, lame_duck),
     .help = "How long, at a shutdown, readiness is false while accepting goes on."},
    {OWN_TOP, "retire_timeout", TYPE_DURATION, "\"1h\"", 0, MONTH, IN(conf, retire_timeout),
     .help = "As drain_timeout, for workers retired by a smaller count or an upgrade."},
    {OWN_TOP, "resolvers", TYPE_ADDRESS, "[]", .flags = OPT_LIST | OPT_SHORT,
     .shown = "those of /etc/resolv.conf",
     .help = "Name servers, each an IP address and a port such as \"10.0.0.53:53\", that are asked "
             "for the addresses of names. /etc/hosts goes before them in any case."},
    {OWN_TOP, "listeners", TYPE_OBJECT, NULL, LIST_IN(conf, listeners, nlisteners),
     .flags = OPT_LIST | OPT_NONEMPTY | OPT_REQUIRED, .object = OWN_LISTENER,
     .help = "Where clients come in."},
    {OWN_TOP, "routes", TYPE_OBJECT, "[]", LIST_IN(conf, routes, nroutes), .flags = OPT_LIST,
     .object = OWN_ROUTE,
     .help = "Which upstream a request goes to. Candidates are ordered by host (exact, longest "
             "wildcard, any), then path (exact, longest prefix, regular expression, any), then place "
             "in the file; the first whose conditions all hold wins. None: 404."},
    {OWN_TOP, "upstreams", TYPE_OBJECT, NULL, LIST_IN(conf, upstreams, nupstreams),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_REQUIRED, .object = OWN_UPSTREAM,
     .help = "Groups of backends, by name."},

    {OWN_METRICS, "address", TYPE_BIND, "\":9100\"",
     .help = "Address to listen on. Where the default's port is taken, akashd says so and goes on "
             "without; an address given in the file must be free."},
    {OWN_METRICS, "allow", TYPE_CIDR, "[]", .flags = OPT_LIST,
     .shown = "loopback only",
     .help = "Networks that may see the status page."},

    {OWN_CONTROL, "path", TYPE_FILE, "\"/run/akashd/control.sock\"", 1, 107, IN(conf, control.path),
     .help = "Path of the socket."},
    {OWN_CONTROL, "mode", TYPE_OCTAL, "\"0600\"", 0, 0777, IN(conf, control.mode),
     .help = "Its permissions, in octal."},
    {OWN_CONTROL, "group", TYPE_NAME, NULL, 1, 32, IN(conf, control.group),
     .shown = "root's",
     .help = "Its group."},

    {OWN_LOG, "level", TYPE_WORD, "\"info\"", IN(conf_log, level), .words = "error|warn|info|debug",
     .help = "The least important level that is written."},
    {OWN_LOG, "target", TYPE_TARGET, "\"stderr\"", 1, 4095, IN(conf_log, target),
     .help = "stderr, syslog, or the path of a file."},
    {OWN_LOG, "format", TYPE_WORD, "\"text\"", IN(conf_log, format), .words = "text|json",
     .help = "Form of a line."},

    {OWN_ACCESS_LOG, "target", TYPE_TARGET, NULL, 1, 4095, IN(conf, access_log.target),
     .flags = OPT_REQUIRED, .help = "stderr, syslog, or the path of a file."},
    {OWN_ACCESS_LOG, "format", TYPE_WORD, "\"combined\"", IN(conf, access_log.format),
     .words = "combined|json|tcp", .help = "Form of a line."},

    /* ---- listeners ---- */
    {OWN_LISTENER, "name", TYPE_NAME, NULL, 1, 64, IN(conf_listener, name), .flags = OPT_REQUIRED,
     .help = "Its name in routes, logs and metrics."},
    {OWN_LISTENER, "address", TYPE_BIND, NULL, IN(conf_listener, addr_texts),
     .flags = OPT_LIST | OPT_ONE | OPT_NONEMPTY | OPT_REQUIRED,
     .help = "Address or addresses to listen on; \":8080\" is every address of the machine, IPv4 "
             "and IPv6."},
    {OWN_LISTENER, "mode", TYPE_WORD, "\"http\"", IN(conf_listener, mode), .words = "http|tcp",
     .flags = OPT_SHORT, .help = "http, or tcp for plain layer 4."},
    {OWN_LISTENER, "upstream", TYPE_NAME, NULL, 1, 64,
     .help = "In tcp mode, where everything goes that no route names (required); in http mode the last "
             "route."},
    {OWN_LISTENER, "tls", TYPE_OBJECT, NULL, IN(conf_listener, tls),
     .flags = OPT_SHORT | OPT_POINTER, .object = OWN_TLS, .help = "Given: the listener speaks TLS."},
    {OWN_LISTENER, "max_connections", TYPE_COUNT, "0", 0, ANY32, IN(conf_listener, max_connections),
     .help = "Client connections of this listener at one time over all workers; 0: no limit of its "
             "own."},
    {OWN_LISTENER, "forwarded_headers", TYPE_BOOL, "true", IN(conf_listener, forwarded_headers),
     .flags = OPT_SHORT,
     .help = "Append X-Forwarded-For; set X-Forwarded-Proto, X-Forwarded-Host and X-Request-ID."},
    {OWN_LISTENER, "backlog", TYPE_COUNT, "4096", 1, 1 << 20, IN(conf_listener, backlog),
     .flags = OPT_SHORT, .help = "Connections the kernel holds until they are accepted."},
    {OWN_LISTENER, "accept_proxy", TYPE_PEER, "[]", .flags = OPT_LIST | OPT_ONE | OPT_SHORT,
     .help = "Networks whose connections begin with a header of the PROXY protocol, version 1 or 2; "
             "\"unix\" is every peer of a Unix socket. From them it is required, before TLS, and the "
             "address that it tells is the client's in everything; without it, or with a malformed "
             "one, the connection is closed. From anyone else it is not understood."},
    {OWN_LISTENER, "trusted_proxies", TYPE_CIDR, "[]", .flags = OPT_LIST | OPT_SHORT,
     .help = "Networks whose X-Forwarded-* fields and X-Request-ID are believed and kept. The client "
             "is then the last address of X-Forwarded-For that is in none of them: for limits, "
             "ip_hash and the access log. Behind accept_proxy it is the address told there that "
             "must be in them."},
    {OWN_LISTENER, "rate_limit", TYPE_OBJECT, NULL, IN(conf_listener, rate_limit),
     .flags = OPT_SHORT | OPT_POINTER, .object = OWN_RATE_LIMIT,
     .help = "How many requests a client may send."},
    {OWN_LISTENER, "http2", TYPE_BOOL, "true", IN(conf_listener, http2), .flags = OPT_SHORT,
     .help = "In http mode HTTP/2 is spoken too: over TLS when ALPN agrees on it, in cleartext to "
             "clients that begin with its preface."},
    {OWN_LISTENER, "limits", TYPE_OBJECT, "{}", .flags = OPT_SHORT, .object = OWN_LIMITS,
     .help = "Bounds of requests and client connections."},
    {OWN_LISTENER, "timeouts", TYPE_OBJECT, "{}", IN(conf_listener, timeouts), .flags = OPT_SHORT,
     .object = OWN_LISTENER_TIMEOUTS,
     .help = "Deadlines towards clients. In the short form the object holds the keys of the "
             "upstream's too, and one that both have goes to both."},

    {OWN_LISTENER, "error_pages", TYPE_OBJECT, NULL, LIST_IN(conf_listener, pages, npages),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_SHORT, .object = OWN_PAGE, .shorthand = "file",
     .shown = "a short text with the reason and the request id",
     .help = "What akashd itself answers with, by status: \"503\", or \"4xx\" and \"5xx\" for those that "
             "have none of their own. Answers of backends and of routes (respond) are not touched, nor "
             "are those to clients of gRPC."},

    {OWN_PAGE, "file", TYPE_FILE, NULL, 1, 4095, IN(conf_page, file),
     .help = "Its file, at most 64 KB, which is read at each load. {status}, {reason} and {request_id} in "
             "it stand for what is answered. An empty file is an error. Either file or body is given."},
    {OWN_PAGE, "body", TYPE_TEXT, NULL, 0, 65536, IN(conf_page, body), .help = "Its text."},
    {OWN_PAGE, "type", TYPE_TEXT, NULL, 3, 127, IN(conf_page, type),
     .shown = "HTML or JSON by the ending of the file (.html, .htm, .json), else plain text",
     .help = "Its Content-Type."},

    {OWN_TLS, "certificates", TYPE_OBJECT, NULL, LIST_IN(conf_tls, certs, ncerts),
     .flags = OPT_LIST | OPT_NONEMPTY | OPT_REQUIRED, .object = OWN_CERTIFICATE,
     .help = "Chosen by the client's server name: exact, then wildcard, then the first."},
    {OWN_TLS, "min_version", TYPE_WORD, "\"1.2\"", 0x0303, 0, IN(conf_tls, min_version),
     .words = "1.2|1.3",
     .help = "The oldest version of TLS that is spoken."},
    {OWN_TLS, "ciphers", TYPE_TEXT, NULL, 1, 4095, IN(conf_tls, ciphers),
     .shown = "Mozilla's intermediate set", .help = "Ciphers of TLS 1.2, as OpenSSL writes them."},
    {OWN_TLS, "ciphersuites", TYPE_TEXT, NULL, 1, 4095, IN(conf_tls, ciphersuites),
     .shown = "Mozilla's intermediate set", .help = "Cipher suites of TLS 1.3, as OpenSSL writes them."},
    {OWN_TLS, "curves", TYPE_TEXT, NULL, 1, 4095, IN(conf_tls, curves),
     .shown = "Mozilla's intermediate set", .help = "Groups for the key exchange."},
    {OWN_TLS, "alpn", TYPE_TEXT, "[\"h2\", \"http/1.1\"]", 1, 255, IN(conf_tls, alpn),
     .flags = OPT_LIST,
     .shown = "[\"h2\", \"http/1.1\"] in http mode, without h2 where http2 is false; none in tcp mode",
     .help = "Protocols offered by ALPN, the preferred one first. In http mode: h2, http/1.1."},
    {OWN_TLS, "client_auth", TYPE_WORD, "\"off\"", IN(conf_tls, client_auth),
     .words = "off|optional|require", .help = "Whether clients show a certificate."},
    {OWN_TLS, "client_ca", TYPE_FILE, NULL, 1, 4095, IN(conf_tls, client_ca.path),
     .help = "PEM file of the authorities that sign client certificates; required unless "
             "client_auth is off."},
    {OWN_TLS, "strict_sni", TYPE_BOOL, "false", IN(conf_tls, strict_sni),
     .help = "End the handshake when no certificate is for the client's server name."},
    {OWN_TLS, "tickets", TYPE_BOOL, "true", IN(conf_tls, tickets),
     .help = "Session tickets: clients resume on any worker and after a reload."},

    {OWN_CERTIFICATE, "cert", TYPE_FILE, NULL, 1, 4095, IN(conf_cert, cert.path),
     .flags = OPT_REQUIRED, .help = "PEM file of the certificate and its chain."},
    {OWN_CERTIFICATE, "key", TYPE_FILE, NULL, 1, 4095, IN(conf_cert, key.path),
     .flags = OPT_REQUIRED, .help = "PEM file of its private key, not encrypted."},

    {OWN_LIMITS, "header_bytes", TYPE_SIZE, "\"32k\"", 512, 1024 * KB,
     IN(conf_listener, header_bytes), .help = "Head of a request; above it: 431 (or 414)."},
    {OWN_LIMITS, "header_count", TYPE_COUNT, "100", 1, 1000, IN(conf_listener, header_count),
     .help = "Fields of a request; above it: 431."},
    {OWN_LIMITS, "body_bytes", TYPE_SIZE, "0", 0, 1024 * 1024 * GB, IN(conf_listener, body_bytes),
     .help = "Body of a request; above it: 413. 0: no limit."},
    {OWN_LIMITS, "requests_per_connection", TYPE_COUNT, "0", 0, ANY32,
     IN(conf_listener, requests_per_connection), .help = "0: any number."},
    {OWN_LIMITS, "requests_in_flight", TYPE_COUNT, "0", 0, 10000000,
     IN(conf_listener, requests_in_flight),
     .help = "Requests of this listener that may be under way at one time, exactly, over all workers: "
             "from the head until the answer has been given, waiting in a queue included. More are "
             "answered 503 (over_limit) with Retry-After; over HTTP/2 the connection goes on. A "
             "tunnel (upgrade, WebSocket) is none any more once it has begun. 0: any number."},
    {OWN_LIMITS, "connections_per_client", TYPE_COUNT, "0", 0, 1000000,
     IN(conf_listener, connections_per_client),
     .help = "Connections of this listener that one client address may have at one time, exactly, over "
             "all workers; of IPv6 a /64 is one client. Behind accept_proxy it is the address in the "
             "header; addresses in trusted_proxies and Unix sockets are not limited. More are treated "
             "as above max_connections. There is room for 262144 addresses at one time; whoever finds "
             "none is let in uncounted (akash_clients_uncounted_total). 0: any number."},
    {OWN_LIMITS, "max_age", TYPE_DURATION, "0", 0, MONTH, IN(conf_listener, max_age_ms),
     .help = "Age at which a client connection is ended after its request. 0: any."},
    {OWN_LIMITS, "http2_streams", TYPE_COUNT, "100", 1, 10000, IN(conf_listener, http2_streams),
     .help = "Requests that run at one time on an HTTP/2 connection."},

    {OWN_LISTENER_TIMEOUTS, "handshake", TYPE_DURATION, "\"10s\"", 0, MONTH,
     IN(conf_listener_timeouts, handshake), .help = "Accept to TLS done."},
    {OWN_LISTENER_TIMEOUTS, "header", TYPE_DURATION, "\"10s\"", 0, MONTH,
     IN(conf_listener_timeouts, header),
     .help = "First byte of a request to its head complete; does not move. Then 408."},
    {OWN_LISTENER_TIMEOUTS, "request_body", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_listener_timeouts, request_body),
     .help = "Moves only after 4 KB of progress or completion. Then 408."},
    {OWN_LISTENER_TIMEOUTS, "idle", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_listener_timeouts, idle), .help = "Between requests."},
    {OWN_LISTENER_TIMEOUTS, "send", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_listener_timeouts, send),
     .help = "While output waits; moves only after 4 KB of progress. Then a reset."},
    {OWN_LISTENER_TIMEOUTS, "tunnel", TYPE_DURATION, "\"1h\"", 0, MONTH,
     IN(conf_listener_timeouts, tunnel),
     .help = "No byte either way in tcp mode and after an upgrade; the smaller one of listener and "
             "upstream counts."},

    /* ---- routes ---- */
    {OWN_ROUTE, "listeners", TYPE_NAME, NULL, 1, 64, IN(conf_route, listeners),
     .flags = OPT_LIST | OPT_NONEMPTY, .shown = "all in http mode",
     .help = "Listeners that the route is for. A listener in tcp mode without tls may be named by routes "
             "that have host, upstream or split, retry and timeouts alone: TLS then passes through "
             "unopened and goes by the server name that its ClientHello asks for. What asks for none, "
             "or is no TLS, goes to the listener's upstream. The ClientHello has timeouts.handshake to "
             "come, so this is not for protocols whose servers speak first."},
    {OWN_ROUTE, "host", TYPE_PATTERN, NULL, 1, 253, IN(conf_route, host), .shown = "any",
     .help = "Host, exact or *.suffix; case, port and a trailing dot do not count."},
    {OWN_ROUTE, "path", TYPE_PREFIX, NULL, 1, 4095, IN(conf_route, path), .shown = "any",
     .help = "Prefix of the path, by whole segments: /api is for /api and /api/x, not for /apix."},
    {OWN_ROUTE, "path_exact", TYPE_PREFIX, NULL, 1, 4095, IN(conf_route, path_exact),
     .help = "The whole path."},
    {OWN_ROUTE, "path_regex", TYPE_TEXT, NULL, 1, PATTERN_MAX, IN(conf_route, path_regex),
     .help = "Regular expression (PCRE2) that is found somewhere in the path; '^' and '$' tie it to "
             "the ends. A request on which an expression takes too long is answered 500."},
    {OWN_ROUTE, "methods", TYPE_METHOD, NULL, 1, 32, IN(conf_route, methods),
     .flags = OPT_LIST | OPT_NONEMPTY, .shown = "any", .help = "Methods that the route is for."},
    {OWN_ROUTE, "headers", TYPE_OBJECT, NULL, LIST_IN(conf_route, headers, nheaders),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_ANY_KEY, .object = OWN_MATCH, .shorthand = "exact",
     .help = "Fields of the request that must have such values, by name. Of several fields of a "
             "name one is enough."},
    {OWN_ROUTE, "query", TYPE_OBJECT, NULL, LIST_IN(conf_route, query, nquery),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_ANY_KEY, .object = OWN_MATCH, .shorthand = "exact",
     .help = "The same for parameters of the query, whose escapes are decoded."},
    {OWN_ROUTE, "upstream", TYPE_NAME, NULL, 1, 64,
     .help = "Where the request goes. A route has exactly one of upstream, split, redirect and "
             "respond."},
    {OWN_ROUTE, "split", TYPE_OBJECT, NULL, LIST_IN(conf_route, split.shares, split.nshares),
     .flags = OPT_LIST | OPT_NONEMPTY, .object = OWN_SHARE,
     .help = "Upstreams that share the requests by weight, exactly over all workers."},
    {OWN_ROUTE, "redirect", TYPE_OBJECT, NULL, IN(conf_route, redirect), .flags = OPT_POINTER,
     .object = OWN_REDIRECT, .help = "The client is sent elsewhere. The query goes along."},
    {OWN_ROUTE, "respond", TYPE_OBJECT, NULL, IN(conf_route, respond), .flags = OPT_POINTER,
     .object = OWN_RESPOND, .help = "akashd itself answers."},
    {OWN_ROUTE, "rewrite", TYPE_OBJECT, NULL, IN(conf_route, rewrite), .flags = OPT_POINTER,
     .object = OWN_REWRITE, .help = "What the backend gets in place of what the client sent."},
    {OWN_ROUTE, "request_headers", TYPE_OBJECT, NULL, IN(conf_route, request_headers),
     .flags = OPT_POINTER, .object = OWN_EDIT, .help = "Changes of the fields that the backend gets."},
    {OWN_ROUTE, "response_headers", TYPE_OBJECT, NULL, IN(conf_route, response_headers),
     .flags = OPT_POINTER, .object = OWN_EDIT,
     .help = "Changes of the fields that the client gets: of a backend's answer, of redirect and of "
             "respond."},
    {OWN_ROUTE, "allow", TYPE_CIDR, NULL, .flags = OPT_LIST | OPT_NONEMPTY, .shown = "all",
     .help = "Networks whose clients may come; others get 403."},
    {OWN_ROUTE, "deny", TYPE_CIDR, NULL, .flags = OPT_LIST | OPT_NONEMPTY, .shown = "none",
     .help = "Networks whose clients get 403, allowed or not."},
    {OWN_ROUTE, "rate_limit", TYPE_OBJECT, NULL, IN(conf_route, rate_limit), .flags = OPT_POINTER,
     .object = OWN_RATE_LIMIT,
     .help = "How many requests a client may send along this route, besides the listener's limit."},
    {OWN_ROUTE, "retry", TYPE_OBJECT, NULL, .flags = OPT_FALSE | OPT_PARTIAL, .object = OWN_RETRY,
     .shown = "the upstream's",
     .help = "Takes the place of the upstream's for this route; keys that are not given stay as they "
             "are there. The budget is always the upstream's."},
    {OWN_ROUTE, "timeouts", TYPE_OBJECT, NULL, .flags = OPT_PARTIAL,
     .object = OWN_UPSTREAM_TIMEOUTS, .shown = "the upstream's",
     .help = "Take the place of the upstream's for this route; those that are not given stay as they "
             "are there. send of connections that several requests share (protocol h2) is "
             "the upstream's."},

    {OWN_MATCH, "exact", TYPE_TEXT, NULL, 0, 4095, IN(conf_match, exact),
     .help = "The whole value. Exactly one of these keys is given."},
    {OWN_MATCH, "prefix", TYPE_TEXT, NULL, 1, 4095, IN(conf_match, prefix),
     .help = "What it begins with."},
    {OWN_MATCH, "suffix", TYPE_TEXT, NULL, 1, 4095, IN(conf_match, suffix),
     .help = "What it ends with."},
    {OWN_MATCH, "regex", TYPE_TEXT, NULL, 1, PATTERN_MAX, IN(conf_match, regex),
     .help = "Regular expression (PCRE2) that is found in it."},
    {OWN_MATCH, "present", TYPE_BOOL, NULL, IN(conf_match, present),
     .help = "Whether there is one at all."},

    {OWN_SHARE, "upstream", TYPE_NAME, NULL, 1, 64, IN(conf_share, name), .flags = OPT_REQUIRED,
     .help = "One that gets a share."},
    {OWN_SHARE, "weight", TYPE_COUNT, "1", 1, 1000, IN(conf_share, weight),
     .help = "How large it is beside the others."},

    {OWN_REDIRECT, "scheme", TYPE_WORD, NULL, CONF_SCHEME_HTTP, 0, IN(conf_redirect, scheme),
     .words = "http|https", .shown = "the request's", .help = "Scheme of the new location."},
    {OWN_REDIRECT, "host", TYPE_TEXT, NULL, 1, 260, IN(conf_redirect, host),
     .shown = "the request's; without its port where scheme is given",
     .help = "Its host, with a port where it needs one."},
    {OWN_REDIRECT, "path", TYPE_REQUEST, NULL, 1, 4095, IN(conf_redirect, path),
     .shown = "the request's, with its query",
     .help = "Its path. The request's query is kept unless this has one."},
    {OWN_REDIRECT, "status", TYPE_COUNT, "302", 301, 308, IN(conf_redirect, status),
     .help = "301 or 308 for good, 302, 303 or 307 for this time."},

    {OWN_RESPOND, "status", TYPE_COUNT, "200", 200, 599, IN(conf_respond, status),
     .help = "Status of the answer."},
    {OWN_RESPOND, "body", TYPE_TEXT, "\"\"", 0, 65536, IN(conf_respond, body),
     .help = "Its text. It is text/plain unless response_headers sets another Content-Type."},

    {OWN_REWRITE, "path_prefix", TYPE_PREFIX, NULL, 1, 4095, IN(conf_rewrite, path_prefix),
     .help = "Takes the place of the route's path (of path_exact: the whole path); goes before the "
             "path where the route has none."},
    {OWN_REWRITE, "host", TYPE_TEXT, NULL, 1, 260, IN(conf_rewrite, host),
     .help = "The Host that the backend gets."},

    {OWN_EDIT, "set", TYPE_TEXT, NULL, 0, 8192, LIST_IN(conf_edit, set, nset),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_ANY_KEY,
     .help = "Fields that have just that value then, by name."},
    {OWN_EDIT, "add", TYPE_TEXT, NULL, 0, 8192, LIST_IN(conf_edit, add, nadd),
     .flags = OPT_MAP | OPT_NONEMPTY | OPT_ANY_KEY,
     .help = "Fields that are put behind those that are there, by name."},
    {OWN_EDIT, "remove", TYPE_TEXT, NULL, 1, 256, IN(conf_edit, remove),
     .flags = OPT_LIST | OPT_NONEMPTY, .help = "Names of fields that go, before the others come."},

    /* ---- rate limits ---- */
    {OWN_RATE_LIMIT, "name", TYPE_NAME, NULL, 1, 64, IN(conf_rate_limit, name),
     .flags = OPT_REQUIRED,
     .help = "Its name in metrics. Limits of one name are one: they count together, and say the "
             "same."},
    {OWN_RATE_LIMIT, "rate", TYPE_RATE, NULL, 1, RATE_US_MAX, IN(conf_rate_limit, rate.interval_us),
     .flags = OPT_REQUIRED,
     .help = "Requests in a second, minute or hour: \"100/s\", \"6000/m\", \"10/h\". Kept exactly "
             "over all workers (GCRA), across reloads and the death of a worker."},
    {OWN_RATE_LIMIT, "burst", TYPE_COUNT, NULL, 1, 1000000, IN(conf_rate_limit, rate.burst),
     .shown = "as many as come in a second, at least 1",
     .help = "How many may come at once; the bucket is full at first."},
    {OWN_RATE_LIMIT, "key", TYPE_KEY, "\"client_ip\"", 1, 255, IN(conf_rate_limit, key),
     .words = "client_ip|header:NAME",
     .help = "Requests with the same key count together. A request without that field is not "
             "limited."},
    {OWN_RATE_LIMIT, "ipv6_prefix", TYPE_COUNT, "64", 1, 128, IN(conf_rate_limit, ipv6_prefix),
     .help = "How many bits of an IPv6 address tell clients apart."},
    {OWN_RATE_LIMIT, "status", TYPE_COUNT, "429", 400, 599, IN(conf_rate_limit, status),
     .help = "Status of the refusal."},
    {OWN_RATE_LIMIT, "dry_run", TYPE_BOOL, "false", IN(conf_rate_limit, dry_run),
     .help = "Count what would be refused, and refuse nothing."},
    {OWN_RATE_LIMIT, "exempt", TYPE_CIDR, "[]", .flags = OPT_LIST,
     .help = "Networks whose clients are not limited."},

    /* ---- upstreams ---- */
    {OWN_UPSTREAM, "algorithm", TYPE_WORD, "\"round_robin\"", IN(conf_upstream, algorithm),
     .words = ALGORITHMS, .flags = OPT_SHORT, .help = ALGORITHM_HELP},
    {OWN_UPSTREAM, "backends", TYPE_OBJECT, NULL, LIST_IN(conf_upstream, backends, nbackends),
     .flags = OPT_LIST | OPT_NONEMPTY | OPT_REQUIRED | OPT_SHORT, .object = OWN_BACKEND,
     .help = "Its members."},
    {OWN_UPSTREAM, "tls", TYPE_OBJECT, NULL, IN(conf_upstream, tls), .flags = OPT_POINTER,
     .object = OWN_UPSTREAM_TLS,
     .help = "Given: the backends speak TLS, health checks included. Long form only."},
    {OWN_UPSTREAM, "hash_key", TYPE_KEY, "\"client_ip\"", 1, 255, IN(conf_upstream, hash_key),
     .words = "client_ip|uri|path|header:NAME|cookie:NAME|query:NAME", .flags = OPT_SHORT,
     .help = "What algorithm hash keeps on one backend. Requests without that field, cookie or "
             "parameter are told apart by the client's address."},
    {OWN_UPSTREAM, "slow_start", TYPE_DURATION, "0", 0, DAY, IN(conf_upstream, slow_start_ms),
     .flags = OPT_SHORT,
     .help = "How long the share of a backend that was down or in maintenance (maint) grows from a tenth "
             "to the whole after it has come up. Not at the start, and not for ip_hash and hash."},
    {OWN_UPSTREAM, "circuit_breaker", TYPE_OBJECT, "false", IN(conf_upstream, breaker),
     .flags = OPT_FALSE | OPT_SHORT | OPT_POINTER, .object = OWN_BREAKER,
     .help = "Stops sending to a backend that fails, and finds out whether it has recovered with few "
             "requests: one state for all workers."},
    {OWN_UPSTREAM, "queue", TYPE_OBJECT, "false", .flags = OPT_FALSE | OPT_SHORT,
     .object = OWN_QUEUE,
     .help = "Where requests wait while all backends have max_connections. false: they are refused."},
    {OWN_UPSTREAM, "max_connections", TYPE_COUNT, "0", 0, ANY32,
     IN(conf_upstream, max_connections),
     .help = "Connections to all its backends at one time over all workers, idle ones included; 0: no "
             "limit. Long form only."},
    {OWN_UPSTREAM, "fail_open", TYPE_BOOL, "false", IN(conf_upstream, fail_open), .flags = OPT_SHORT,
     .help = "When every backend is down or its breaker is open, send to them all the same."},
    {OWN_UPSTREAM, "retry", TYPE_OBJECT, "{}", IN(conf_upstream, policy.retry),
     .flags = OPT_FALSE | OPT_SHORT | OPT_POINTER, .object = OWN_RETRY,
     .help = "Requests that failed are sent to another backend. false: never, save for a used "
             "connection that had ended, or with protocol h2 took no more, before the request met "
             "it."},
    {OWN_UPSTREAM, "health_check", TYPE_OBJECT, "{}", IN(conf_upstream, health),
     .flags = OPT_FALSE | OPT_SHORT, .object = OWN_HEALTH,
     .help = "How the monitor probes the backends. false: not at all. In the short form it excludes "
             "health_check_* and timeout_seconds, and rise and fall are 1 unless given."},
    {OWN_UPSTREAM, "keepalive", TYPE_OBJECT, "{}", IN(conf_upstream, keepalive), .flags = OPT_SHORT,
     .object = OWN_KEEPALIVE, .help = "Idle backend connections that are kept for reuse."},
    {OWN_UPSTREAM, "protocol", TYPE_WORD, "\"http1\"", CONF_HTTP1, 0,
     IN(conf_upstream, protocol), .words = "http1|h2",
     .help = "What the backends speak in http mode: HTTP/1.1, or HTTP/2: over TLS by ALPN, in "
             "cleartext with prior knowledge."},
    {OWN_UPSTREAM, "sticky", TYPE_OBJECT, "false", IN(conf_upstream, sticky),
     .flags = OPT_FALSE | OPT_SHORT | OPT_POINTER, .object = OWN_STICKY,
     .help = "In http mode a cookie keeps a client on the backend that served it first, over reloads, "
             "upgrades and any number of machines with the same file. While that backend has no room "
             "another serves; when it is down, drained, in maintenance or has failed the request, the "
             "algorithm chooses another, which the client gets a cookie for."},
    {OWN_UPSTREAM, "send_proxy", TYPE_WORD, NULL, 1, 0, IN(conf_upstream, send_proxy),
     .words = "v1|v2", .flags = OPT_SHORT, .shown = "none",
     .help = "Every connection to a backend, health checks included, begins with a header of the PROXY "
             "protocol that tells the client's address; v2 tells of its TLS too. Such a connection "
             "serves one request in http mode, since another might be somebody else's. Not with "
             "protocol h2."},
    {OWN_UPSTREAM, "source", TYPE_IP, "[]", .flags = OPT_LIST | OPT_ONE | OPT_SHORT,
     .shown = "chosen by the kernel",
     .help = "Addresses of this machine that connections to the backends come from, health checks "
             "included. Several of one family take turns, for more connections than one has ports; a "
             "backend of a family that has none is connected to from whatever the kernel chooses."},
    {OWN_UPSTREAM, "timeouts", TYPE_OBJECT, "{}", IN(conf_upstream, policy.timeouts),
     .object = OWN_UPSTREAM_TIMEOUTS, .help = "Deadlines towards backends."},

    {OWN_BACKEND, "id", TYPE_NAME, NULL, 1, 64, IN(conf_backend, id), .shown = "its address",
     .help = "Its name in logs and metrics. Of a name with several addresses each is a backend of "
             "its own, id name:port@address."},
    {OWN_BACKEND, "address", TYPE_ADDRESS, NULL, IN(conf_backend, address), .flags = OPT_REQUIRED,
     .help = "\"127.0.0.1:8081\", \"[::1]:8081\", \"name:8081\", \"unix:/path\" or "
             "\"srv:_http._tcp.name\". A name is looked up again when its records' time to live is "
             "over (1 s to 1 h; each minute where /etc/hosts has it), and a change takes effect like "
             "a reload; an empty or failed answer changes nothing. srv: takes port and weight from SRV "
             "records (weights above 256 are scaled down); targets of the least priority come first, "
             "others are backups. At most 64 addresses of a name are used."},
    {OWN_BACKEND, "weight", TYPE_COUNT, "1", 1, 256, IN(conf_backend, weight),
     .help = "Its share among the backends of the upstream."},
    {OWN_BACKEND, "paths", TYPE_PREFIX, NULL, 1, 1024, IN(conf_backend, paths), .flags = OPT_LIST,
     .shown = "any",
     .help = "Prefixes of paths, by whole segments. The longest that matches a request chooses the "
             "backends that list it; a request that matches none goes to the backends without "
             "paths, or to all where every one has some."},
    {OWN_BACKEND, "backup", TYPE_BOOL, "false", IN(conf_backend, backup),
     .help = "Used only when none of the others is usable."},
    {OWN_BACKEND, "max_connections", TYPE_COUNT, "0", 0, ANY32, IN(conf_backend, max_connections),
     .help = "Connections to it at one time over all workers; 0: no limit."},
    {OWN_BACKEND, "state", TYPE_WORD, "\"ready\"", IN(conf_backend, state),
     .words = "ready|drain|maint", .help = "drain and maint: no new requests."},

    {OWN_HEALTH, "type", TYPE_WORD, "\"tcp\"", CONF_HEALTH_TCP, 0, IN(conf_health, type),
     .words = "tcp|http|grpc", .shown = "http where a key of http is given, else tcp",
     .help = "A TCP connect, an HTTP request, or a call of grpc.health.v1.Health/Check by HTTP/2."},
    {OWN_HEALTH, "path", TYPE_REQUEST, "\"/\"", 1, 1024, IN(conf_health, path),
     .flags = OPT_HTTP | OPT_GRPC,
     .help = "What an HTTP check asks for; of a grpc check '/' and the name of the service, or '/' "
             "alone for the server as a whole."},
    {OWN_HEALTH, "port", TYPE_PORT, NULL, 1, 65535, IN(conf_health, port),
     .shown = "the backend's own", .help = "Where the check goes."},
    {OWN_HEALTH, "host", TYPE_HOST, NULL, 1, 253, IN(conf_health, host),
     .flags = OPT_HTTP | OPT_GRPC, .shown = "the backend's address",
     .help = "Host field of an HTTP check, authority of a grpc check."},
    {OWN_HEALTH, "method", TYPE_METHOD, "\"GET\"", 1, 32, IN(conf_health, method),
     .flags = OPT_HTTP, .help = "Method of an HTTP check."},
    {OWN_HEALTH, "expect", TYPE_STATUS, "\"200-399\"", .flags = OPT_HTTP,
     .help = "Status codes that are healthy: \"200-399\", \"200,301-302\"."},
    {OWN_HEALTH, "body", TYPE_TEXT, NULL, 1, 1024, IN(conf_health, body), .flags = OPT_HTTP,
     .shown = "any", .help = "Text that must stand in the answer's body."},
    {OWN_HEALTH, "interval", TYPE_DURATION, "\"2s\"", 10, DAY, IN(conf_health, interval),
     .help = "Between checks of a backend."},
    {OWN_HEALTH, "timeout", TYPE_DURATION, "\"1s\"", 1, 3600 * SECOND, IN(conf_health, timeout),
     .help = "Time that one check may take."},
    {OWN_HEALTH, "rise", TYPE_COUNT, "2", 1, 1000, IN(conf_health, rise),
     .help = "Good checks in a row that bring a backend up."},
    {OWN_HEALTH, "fall", TYPE_COUNT, "3", 1, 1000, IN(conf_health, fall),
     .help = "Failed checks in a row that take it down."},
    {OWN_HEALTH, "jitter", TYPE_PERCENT, "10", 0, 100, IN(conf_health, jitter_percent),
     .help = "How far the interval varies at random, in percent."},

    {OWN_BREAKER, "window", TYPE_DURATION, "\"10s\"", 8, 3600 * SECOND,
     IN(breaker_rules, window_ms), .help = "Time in which requests and failures count."},
    {OWN_BREAKER, "min_requests", TYPE_COUNT, "20", 1, 100000, IN(breaker_rules, min_requests),
     .help = "Requests in the window from which on error_percent counts."},
    {OWN_BREAKER, "error_percent", TYPE_PERCENT, "50", 1, 100, IN(breaker_rules, error_percent),
     .help = "Failures among them that open the breaker. Failures are what counts as one in metrics, "
             "and answers from 500 on."},
    {OWN_BREAKER, "consecutive", TYPE_COUNT, "5", 0, 100000, IN(breaker_rules, consecutive),
     .help = "Failures in a row that open it; 0: they do not count."},
    {OWN_BREAKER, "latency_factor", TYPE_COUNT, "0", 0, 1000, IN(breaker_rules, latency_factor),
     .help = "An answer that takes so many times the median latency of the upstream's backends (of two: "
             "the quicker one's) is a failure; 0: none is for being slow."},
    {OWN_BREAKER, "open_for", TYPE_DURATION, "\"10s\"", 10, 300 * SECOND,
     IN(breaker_rules, open_for_ms),
     .help = "How long it is open, doubling while it trips again, up to 5m."},
    {OWN_BREAKER, "half_open_requests", TYPE_COUNT, "3", 1, 255,
     IN(breaker_rules, half_open_requests),
     .help = "Requests over all workers that are let through then; all must end well."},
    {OWN_BREAKER, "max_ejected_percent", TYPE_PERCENT, "50", 1, 100,
     IN(breaker_rules, max_ejected_percent),
     .help = "Of the upstream's backends that may be out by their breakers at one time; one always "
             "may."},

    {OWN_QUEUE, "size", TYPE_COUNT, NULL, 1, 1000000, IN(conf_upstream, queue_size),
     .flags = OPT_REQUIRED,
     .help = "How many may wait, over all workers: first come first served in a worker, in turns "
             "between workers. More are refused (queue_full)."},

    {OWN_RETRY, "attempts", TYPE_COUNT, "2", 1, 10, IN(conf_retry, attempts),
     .help = "Attempts after the first."},
    {OWN_RETRY, "on", TYPE_WORD, "[\"connect\", \"reset\"]", .flags = OPT_LIST,
     .words = "connect|reset|timeout|502|503|504",
     .help = "What is retried: connect, a connection that could not be made; reset, one that broke "
             "before the answer; timeout, no answer in time; an answer with that status."},
    {OWN_RETRY, "methods", TYPE_METHOD,
     "[\"GET\", \"HEAD\", \"OPTIONS\", \"PUT\", \"DELETE\", \"TRACE\"]", 1, 32,
     IN(conf_retry, methods), .flags = OPT_LIST,
     .help = "Methods that may be sent twice. Others are retried only when no byte of the request "
             "was sent, or the backend said that it did nothing."},
    {OWN_RETRY, "budget", TYPE_OBJECT, "{}", IN(conf_retry, budget), .object = OWN_BUDGET,
     .help = "Bounds retries to a part of the requests, over all workers; with protocol h2 also how "
             "often is sent again what a backend said it did nothing with."},
    {OWN_RETRY, "backoff", TYPE_OBJECT, "{}", IN(conf_retry, backoff), .object = OWN_BACKOFF,
     .help = "Waiting before a retry: at random up to a limit that doubles (full jitter)."},
    {OWN_RETRY, "per_try_timeout", TYPE_DURATION, "0", 0, MONTH, IN(conf_retry, per_try_timeout),
     .help = "Request sent to head of the answer, for each attempt; 0: the response timeout alone."},

    {OWN_BUDGET, "percent", TYPE_PERCENT, "20", 0, 100, IN(conf_budget, percent),
     .help = "Of the first attempts that may be retried."},
    {OWN_BUDGET, "min_per_second", TYPE_COUNT, "3", 0, 10000, IN(conf_budget, min_per_second),
     .help = "Retries in a second that there are besides. At most 10 s' worth of both is saved."},

    {OWN_BACKOFF, "base", TYPE_DURATION, "\"25ms\"", 0, 60 * SECOND, IN(conf_backoff, base),
     .help = "The limit before the first retry."},
    {OWN_BACKOFF, "max", TYPE_DURATION, "\"250ms\"", 0, 60 * SECOND, IN(conf_backoff, max),
     .help = "The greatest limit."},

    {OWN_STICKY, "cookie", TYPE_NAME, "\"akash\"", 1, 64, IN(conf_sticky, cookie),
     .help = "Its name. Backends do not see it."},
    {OWN_STICKY, "secret", TYPE_TEXT, NULL, 16, 255, IN(conf_sticky, secret),
     .flags = OPT_REQUIRED | OPT_SECRET,
     .help = "What it is signed with, at least 16 bytes; the same on all machines. ${NAME} takes it "
             "from the environment."},
    {OWN_STICKY, "ttl", TYPE_DURATION, "0", 0, 12 * MONTH, IN(conf_sticky, ttl),
     .help = "How long it holds; it is renewed after half of that. 0: until the browser ends."},
    {OWN_STICKY, "path", TYPE_PREFIX, "\"/\"", 1, 255, IN(conf_sticky, path),
     .help = "Requests below this path carry it."},
    {OWN_STICKY, "secure", TYPE_BOOL, "false", IN(conf_sticky, secure),
     .help = "true: never over cleartext (for a listener behind something that ends TLS). Where the "
             "listener speaks TLS it is always so."},

    {OWN_KEEPALIVE, "connections", TYPE_COUNT, "256", 0, 65535,
     IN(conf_keepalive, connections), .help = "Idle ones for each worker and backend."},
    {OWN_KEEPALIVE, "idle", TYPE_DURATION, "\"60s\"", 0, MONTH, IN(conf_keepalive, idle),
     .help = "How long one may be idle; 0: any time."},
    {OWN_KEEPALIVE, "requests", TYPE_COUNT, "0", 0, ANY32, IN(conf_keepalive, requests),
     .help = "Requests it serves; 0: any number."},
    {OWN_KEEPALIVE, "lifetime", TYPE_DURATION, "0", 0, MONTH, IN(conf_keepalive, lifetime),
     .help = "Its age; 0: any."},

    {OWN_UPSTREAM_TIMEOUTS, "connect", TYPE_DURATION, "\"5s\"", 0, MONTH,
     IN(conf_upstream_timeouts, connect),
     .help = "Connect to connected. Then the next backend, then 504."},
    {OWN_UPSTREAM_TIMEOUTS, "queue", TYPE_DURATION, "\"5s\"", 0, MONTH,
     IN(conf_upstream_timeouts, queue), .help = "Waiting for a place at a backend. Then 503."},
    {OWN_UPSTREAM_TIMEOUTS, "response", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_upstream_timeouts, response), .help = "Request sent to head of the answer. Then 504."},
    {OWN_UPSTREAM_TIMEOUTS, "response_body", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_upstream_timeouts, response_body),
     .help = "Moves only after 4 KB of progress. Then the answer is cut visibly."},
    {OWN_UPSTREAM_TIMEOUTS, "send", TYPE_DURATION, "\"60s\"", 0, MONTH,
     IN(conf_upstream_timeouts, send),
     .help = "While output waits; moves only after 4 KB of progress. Then 504."},
    {OWN_UPSTREAM_TIMEOUTS, "tunnel", TYPE_DURATION, "\"1h\"", 0, MONTH,
     IN(conf_upstream_timeouts, tunnel),
     .help = "No byte either way in tcp mode and after an upgrade; the smaller one of listener and "
             "upstream counts."},
    {OWN_UPSTREAM_TIMEOUTS, "total", TYPE_DURATION, "0", 0, MONTH,
     IN(conf_upstream_timeouts, total),
     .help = "Request head received to answer complete, tries included. Then 504, or it is cut."},

    /* ---- short form ---- */
    {OWN_UPSTREAM_TLS, "verify", TYPE_BOOL, "true", IN(conf_upstream_tls, verify),
     .help = "Check that a certificate is signed by a trusted authority and is for the backend's "
             "name. false: any one will do, and nobody knows who is at the other end."},
    {OWN_UPSTREAM_TLS, "ca", TYPE_FILE, NULL, 1, 4095, IN(conf_upstream_tls, ca.path),
     .shown = "the system's",
     .help = "PEM file of the authorities, or of the very certificates, that are trusted."},
    {OWN_UPSTREAM_TLS, "server_name", TYPE_HOST, NULL, 1, 253, IN(conf_upstream_tls, server_name),
     .shown = "the host of each backend's address",
     .help = "Name that the certificates must have and that is sent to the backends; an IP address "
             "must stand in them as such and is not sent. Backends on Unix sockets need it."},
    {OWN_UPSTREAM_TLS, "cert", TYPE_FILE, NULL, 1, 4095, IN(conf_upstream_tls, cert.path),
     .help = "PEM file of the certificate and chain to show to backends that ask for one. Health "
             "checks have no key and show none: one of type tcp passes when the backend has proven "
             "who it is and asks, one of type http needs a backend (or a port) that answers it "
             "without."},
    {OWN_UPSTREAM_TLS, "key", TYPE_FILE, NULL, 1, 4095, IN(conf_upstream_tls, key.path),
     .help = "PEM file of its private key, not encrypted."},
    {OWN_UPSTREAM_TLS, "min_version", TYPE_WORD, "\"1.2\"", 0x0303, 0,
     IN(conf_upstream_tls, min_version), .words = "1.2|1.3",
     .help = "The oldest version of TLS that is spoken."},

    {OWN_SHORT, "host", TYPE_HOST, "\"0.0.0.0\"", 1, 253,
     .help = "Address of the listener named default."},
    {OWN_SHORT, "listen", TYPE_PORT, "\"1902\"", 1, 65535, .help = "Its port."},
    {OWN_SHORT, "timeout_seconds", TYPE_DURATION, "5", 1, 3600 * SECOND,
     .help = "Time that one health check may take."},
    {OWN_SHORT, "health_check_path", TYPE_REQUEST, NULL, 1, 1024, .shown = "a TCP connect",
     .help = "HTTP GET of this path, healthy on 200-399."},
    {OWN_SHORT, "health_check_port", TYPE_PORT, NULL, 1, 65535, .shown = "the backend's own",
     .help = "Where the health check goes."},
    {OWN_SHORT, "health_check_freq", TYPE_DURATION, "10", 10, DAY,
     .help = "Between health checks of a backend."},
    {OWN_SHORT, "tls_cert_file", TYPE_FILE, NULL, 1, 4095,
     .help = "PEM certificate; with tls_key_file the listener speaks TLS."},
    {OWN_SHORT, "tls_key_file", TYPE_FILE, NULL, 1, 4095, .help = "Its private key."},
    {OWN_SHORT, "Backends", TYPE_OBJECT, NULL, .flags = OPT_LIST | OPT_NONEMPTY,
     .object = OWN_BACKEND, .help = "Members of the upstream named default. Required; also written "
                                    "backends."},
};
/* clang-format on */

const size_t option_table_len = sizeof(option_table) / sizeof(option_table[0]);

const struct option_object option_objects[OWN_COUNT] = {
    [OWN_TOP] = {"top level", sizeof(struct conf), "Keys that stand at the top of the file."},
    [OWN_METRICS] = {"metrics", 0, "Its address alone may stand for the object."},
    [OWN_CONTROL] = {"control_socket", 0, "Its path alone may stand for the object."},
    [OWN_LOG] = {"log", sizeof(struct conf_log), NULL},
    [OWN_ACCESS_LOG] = {"access_log", 0, "Its target alone may stand for the object."},
    [OWN_LISTENER] = {"listener", sizeof(struct conf_listener), "An element of listeners."},
    [OWN_TLS] = {"tls", sizeof(struct conf_tls), "TLS of a listener."},
    [OWN_CERTIFICATE] = {"certificate", sizeof(struct conf_cert), "An element of certificates."},
    [OWN_LIMITS] = {"limits", 0, "Limits of a listener."},
    [OWN_LISTENER_TIMEOUTS] = {"listener timeouts", sizeof(struct conf_listener_timeouts),
                               "Timeouts of a listener; 0 is none."},
    [OWN_RATE_LIMIT] = {"rate_limit", sizeof(struct conf_rate_limit), "Of a listener or a route."},
    [OWN_PAGE] = {"error page", sizeof(struct conf_page),
                  "Of a listener. The path of its file alone may stand for the object."},
    [OWN_ROUTE] = {"route", sizeof(struct conf_route), "An element of routes."},
    [OWN_MATCH] = {"match", sizeof(struct conf_match),
                   "A condition of a route. The value alone may stand for the object."},
    [OWN_SHARE] = {"share", sizeof(struct conf_share), "An element of split."},
    [OWN_REDIRECT] = {"redirect", sizeof(struct conf_redirect), "Of a route."},
    [OWN_RESPOND] = {"respond", sizeof(struct conf_respond), "Of a route."},
    [OWN_REWRITE] = {"rewrite", sizeof(struct conf_rewrite), "Of a route."},
    [OWN_EDIT] = {"headers", sizeof(struct conf_edit),
                  "Changes of a message's fields; those that frame it, or are for one connection, "
                  "and Host are not touched."},
    [OWN_UPSTREAM] = {"upstream", sizeof(struct conf_upstream), "A member of upstreams."},
    [OWN_BACKEND] = {"backend", sizeof(struct conf_backend), "An element of backends."},
    [OWN_HEALTH] = {"health_check", sizeof(struct conf_health), NULL},
    [OWN_STICKY] = {"sticky", sizeof(struct conf_sticky), NULL},
    [OWN_KEEPALIVE] = {"keepalive", sizeof(struct conf_keepalive), NULL},
    [OWN_UPSTREAM_TIMEOUTS] = {"upstream timeouts", sizeof(struct conf_upstream_timeouts),
                               "Timeouts of an upstream; 0 is none."},
    [OWN_UPSTREAM_TLS] = {"upstream tls", sizeof(struct conf_upstream_tls),
                          "TLS towards the backends of an upstream."},
    [OWN_BREAKER] = {"circuit_breaker", sizeof(struct breaker_rules), "Of each backend."},
    [OWN_QUEUE] = {"queue", 0, NULL},
    [OWN_RETRY] = {"retry", sizeof(struct conf_retry), NULL},
    [OWN_BUDGET] = {"budget", sizeof(struct conf_budget), "Of retry."},
    [OWN_BACKOFF] = {"backoff", sizeof(struct conf_backoff), "Of retry."},
    [OWN_SHORT] = {"short form", 0, "Keys that only the short form has."},
};
