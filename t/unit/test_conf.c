/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conf.c - what a configuration file comes to: both forms, defaults, errors with places.
 */
#include "conf/conf.h"

#include <check.h>
#include <dirent.h>
#include <stdlib.h>

#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

#define BACKEND "{\"address\":\"127.0.0.1:8081\"}"

static uint16_t
port_of(const struct addr *addr)
{
    return ntohs(addr->sa.sa_family == AF_INET6 ? addr->in6.sin6_port : addr->in.sin_port);
}

/* ---- the short form ---- */

static const char first_akash[] =
    "{\n"
    "  \"host\": \"0.0.0.0\",\n"
    "  \"listen\": \"1902\",\n"
    "  \"algorithm\": \"round_robin\",\n"
    "  \"max_connections\": 1000,\n"
    "  \"timeout_seconds\": 5,\n"
    "  \"health_check_path\": \"/health\",\n"
    "  \"health_check_port\": \"80\",\n"
    "  \"health_check_freq\": 10,\n"
    "  \"Backends\": [\n"
    "    { \"address\": \"127.0.0.1:8081\", \"weight\": 1, \"paths\": [\"/api\"] },\n"
    "    { \"address\": \"127.0.0.1:8082\", \"weight\": 2, \"paths\": [\"/static\"] }\n"
    "  ]\n"
    "}\n";

START_TEST(first_akash_file_means_what_it_meant)
{
    struct conf *conf = fixture_must_load(first_akash);
    const struct conf_listener *listener = &conf->listeners[0];
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_uint_eq(conf->nlisteners, 1);
    ck_assert_str_eq(listener->name, "default");
    ck_assert_str_eq(listener->addr_texts[0], "0.0.0.0:1902");
    ck_assert_ptr_eq(listener->upstream, up);
    ck_assert_uint_eq(conf->max_connections, 1000);
    ck_assert_uint_eq(conf->nupstreams, 1);
    ck_assert_str_eq(up->name, "default");
    ck_assert_int_eq(up->algorithm, CONF_ROUND_ROBIN);
    ck_assert_int_eq(up->health.type, CONF_HEALTH_HTTP);
    ck_assert_str_eq(up->health.path, "/health");
    ck_assert_uint_eq(up->health.interval, 10000);
    ck_assert_uint_eq(up->health.timeout, 5000);
    ck_assert_uint_eq(up->health.rise, 1);
    ck_assert_uint_eq(up->health.fall, 1);
    ck_assert_uint_eq(up->nbackends, 2);
    ck_assert_uint_eq(up->backends[1].weight, 2);
    ck_assert_uint_eq(port_of(&up->backends[1].addr), 8082);
    ck_assert_uint_eq(port_of(&up->backends[1].check_addr), 80);
    fixture_free(conf);
}
END_TEST

START_TEST(short_form_has_its_defaults)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND "]}");
    const struct conf_listener *listener = &conf->listeners[0];
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_str_eq(listener->addr_texts[0], "0.0.0.0:1902");
    ck_assert_int_eq(listener->mode, CONF_HTTP);
    ck_assert_ptr_null(listener->tls);
    ck_assert_int_eq(up->health.type, CONF_HEALTH_TCP);
    ck_assert_uint_eq(up->health.interval, 10000);
    ck_assert_uint_eq(up->health.timeout, 5000);
    ck_assert_uint_eq(up->health.rise, 1);
    ck_assert_uint_eq(up->backends[0].weight, 1);
    ck_assert_uint_eq(port_of(&up->backends[0].check_addr), 8081);
    fixture_free(conf);
}
END_TEST

START_TEST(host_and_port_make_an_address)
{
    static const char *const cases[][2] = {
        {"\"host\":\"127.0.0.1\",\"listen\":80", "127.0.0.1:80"},
        {"\"host\":\"::1\",\"listen\":\"80\"", "[::1]:80"},
        {"\"host\":\"[::1]\"", "[::1]:1902"},
        {"\"host\":\"one\"", "192.0.2.1:1902"},
        {"\"listen\":8080", "0.0.0.0:8080"},
    };
    char text[200];
    snprintf(text, sizeof(text), "{%s,\"backends\":[" BACKEND "]}", cases[_i][0]);
    struct conf *conf = fixture_must_load(text);
    ck_assert_str_eq(conf->listeners[0].addr_texts[0], cases[_i][1]);
    fixture_free(conf);
}
END_TEST

START_TEST(keys_of_the_long_form_find_their_place)
{
    struct conf *conf = fixture_must_load(
        "{\"backends\":[" BACKEND "],\"limits\":{\"body_bytes\":\"1m\"},\"backlog\":5,"
        "\"forwarded_headers\":false,\"keepalive\":{\"connections\":3},\"mode\":\"tcp\","
        "\"timeouts\":{\"idle\":\"1s\",\"connect\":\"2s\",\"send\":\"3s\"}}");
    const struct conf_listener *listener = &conf->listeners[0];
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_uint_eq(listener->body_bytes, 1048576);
    ck_assert_uint_eq(listener->backlog, 5);
    ck_assert(!listener->forwarded_headers);
    ck_assert_int_eq(listener->mode, CONF_TCP);
    ck_assert_uint_eq(listener->timeouts.idle, 1000);
    ck_assert_uint_eq(listener->timeouts.send, 3000);
    ck_assert_uint_eq(up->policy.timeouts.connect, 2000);
    ck_assert_uint_eq(up->policy.timeouts.send, 3000);
    ck_assert_uint_eq(up->keepalive.connections, 3);
    fixture_free(conf);
}
END_TEST

START_TEST(health_check_object_takes_the_place_of_short_keys)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND
                                          "],\"health_check\":{\"path\":\"/h\",\"fall\":4}}");
    ck_assert_int_eq(conf->upstreams[0].health.type, CONF_HEALTH_HTTP);
    ck_assert_uint_eq(conf->upstreams[0].health.rise, 1);
    ck_assert_uint_eq(conf->upstreams[0].health.fall, 4);
    ck_assert_uint_eq(conf->upstreams[0].health.interval, 2000);
    fixture_free(conf);
    conf = fixture_must_load("{\"backends\":[" BACKEND "],\"health_check\":false}");
    ck_assert_int_eq(conf->upstreams[0].health.type, CONF_HEALTH_OFF);
    fixture_free(conf);
}
END_TEST

/* ---- pools ---- */

static const char *
pool_for(struct conf *conf, const char *path)
{
    return conf_upstream_pool(&conf->upstreams[0], slice_from_str(path))->id;
}

START_TEST(longest_path_of_segments_chooses_the_pool)
{
    struct conf *conf = fixture_must_load(
        "{\"backends\":[{\"address\":\"127.0.0.1:1\",\"paths\":[\"/api\",\"/api/v2\"]},"
        "{\"address\":\"127.0.0.1:2\",\"paths\":[\"/api\"],\"weight\":3},"
        "{\"address\":\"127.0.0.1:3\"}]}");
    const struct conf_pool *rest = &conf->upstreams[0].pools[0];
    const struct conf_pool *api = conf_upstream_pool(&conf->upstreams[0], SLICE("/api/x"));
    ck_assert_str_eq(pool_for(conf, "/api"), "default:/api");
    ck_assert_str_eq(pool_for(conf, "/api/v2/x"), "default:/api/v2");
    ck_assert_str_eq(pool_for(conf, "/apix"), "default");
    ck_assert_str_eq(pool_for(conf, "/"), "default");
    ck_assert_uint_eq(rest->nbackends, 1);
    ck_assert_uint_eq(rest->backends[0]->index, 2);
    ck_assert_uint_eq(api->nbackends, 2);
    ck_assert_uint_eq(api->schedule_len, 4);
    fixture_free(conf);
}
END_TEST

START_TEST(where_all_have_paths_the_rest_goes_to_all)
{
    struct conf *conf = fixture_must_load(first_akash);
    ck_assert_str_eq(pool_for(conf, "/static/a.css"), "default:/static");
    ck_assert_uint_eq(conf_upstream_pool(&conf->upstreams[0], SLICE("/"))->nbackends, 2);
    fixture_free(conf);
}
END_TEST

START_TEST(upstream_without_paths_has_one_pool)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND "]}");
    ck_assert_uint_eq(conf->upstreams[0].npools, 1);
    ck_assert_str_eq(pool_for(conf, "/api"), "default");
    fixture_free(conf);
}
END_TEST

/* ---- names ---- */

START_TEST(every_address_of_a_name_is_a_backend)
{
    struct conf *conf = fixture_must_load("{\"backends\":[{\"address\":\"three:80\",\"weight\":2},"
                                          "{\"address\":\"one:80\",\"id\":\"x\"}]}");
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_uint_eq(up->nbackends, 4);
    ck_assert_str_eq(up->backends[0].id, "three:80@192.0.2.3");
    ck_assert_str_eq(up->backends[1].id, "three:80@192.0.2.9");
    ck_assert_str_eq(up->backends[2].id, "three:80@2001:db8::1");
    ck_assert_str_eq(up->backends[3].id, "x@192.0.2.1");
    ck_assert_uint_eq(up->backends[2].weight, 2);
    ck_assert_uint_eq(up->backends[2].index, 2);
    ck_assert_uint_eq(up->pools[0].schedule_len, 7);
    fixture_free(conf);
}
END_TEST

START_TEST(srv_records_give_port_weight_and_order)
{
    struct conf *conf =
        fixture_must_load("{\"backends\":[{\"address\":\"srv:_srv._tcp.x\",\"weight\":7}]}");
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_uint_eq(up->nbackends, 3);
    ck_assert_str_eq(up->backends[0].id, "srv:_srv._tcp.x@192.0.2.1:8081");
    ck_assert_str_eq(up->backends[1].id, "srv:_srv._tcp.x@192.0.2.2:8080");
    ck_assert_str_eq(up->backends[2].id, "srv:_srv._tcp.x@192.0.2.3:80");
    ck_assert_uint_eq(up->backends[0].weight, 256);
    ck_assert_uint_eq(up->backends[1].weight, 128);
    ck_assert_uint_eq(up->backends[2].weight, 1);
    ck_assert(!up->backends[0].backup && !up->backends[1].backup && up->backends[2].backup);
    fixture_free(conf);
}
END_TEST

START_TEST(srv_records_without_weight_leave_that_of_the_file)
{
    struct conf *conf =
        fixture_must_load("{\"backends\":[{\"address\":\"srv:_even._tcp.x\",\"weight\":7}]}");
    ck_assert_uint_eq(conf->upstreams[0].backends[0].weight, 7);
    ck_assert_uint_eq(conf->upstreams[0].backends[1].weight, 7);
    fixture_free(conf);
}
END_TEST

START_TEST(names_are_kept_once_and_without_port)
{
    struct conf *conf = fixture_must_load(
        "{\"backends\":[{\"address\":\"three:80\"},{\"address\":\"three:81\"},"
        "{\"address\":\"gone:1\"},{\"address\":\"srv:_srv._tcp.x\"},{\"address\":\"127.0.0.1:1\"}]}");
    ck_assert_uint_eq(conf->nnames, 3);
    const struct conf_name *three = conf_name_find(conf, SLICE("three"), false);
    ck_assert_uint_eq(three->nfound, 3);
    ck_assert_uint_eq(three->found[0].addr.in.sin_port, 0);
    ck_assert_uint_eq(conf_name_find(conf, SLICE("gone"), false)->nfound, 0);
    ck_assert_uint_eq(conf_name_find(conf, SLICE("_srv._tcp.x"), true)->found[0].addr.in.sin_port,
                      htons(8081));
    ck_assert_ptr_null(conf_name_find(conf, SLICE("three"), true));
    fixture_free(conf);
}
END_TEST

START_TEST(resolvers_are_addresses)
{
    struct conf *conf = fixture_must_load("{\"backends\":[{\"address\":\"127.0.0.1:1\"}],"
                                          "\"resolvers\":[\"10.0.0.53:53\",\"[::1]:5353\"]}");
    ck_assert_uint_eq(conf->nresolvers, 2);
    ck_assert_uint_eq(conf->resolvers[1].in6.sin6_port, htons(5353));
    fixture_free(conf);
    ck_assert_ptr_null(fixture_load("{\"backends\":[{\"address\":\"127.0.0.1:1\"}],"
                                    "\"resolvers\":[\"one:53\"]}"));
    ck_assert_str_eq(fixture_errors()->errors[0],
                     "/etc/akashd/test.json:1:54: resolvers[0]: expected the IP address and port "
                     "of a name server, got \"one:53\"");
}
END_TEST

START_TEST(name_that_does_not_resolve_is_a_warning)
{
    struct conf *conf = fixture_must_load("{\"backends\":[\n{\"address\":\"gone:80\"}]}");
    ck_assert_uint_eq(conf->upstreams[0].nbackends, 0);
    ck_assert_uint_eq(conf->upstreams[0].pools[0].nbackends, 0);
    ck_assert_uint_eq(fixture_errors()->nwarnings, 1);
    ck_assert_str_eq(fixture_errors()->warnings[0],
                     "/etc/akashd/test.json:2:12: backends[0].address: gone does not resolve");
    fixture_free(conf);
}
END_TEST

/* ---- the long form ---- */

START_TEST(long_form_is_read)
{
    struct conf *conf = fixture_must_load(
        "{\"workers\":3,\"listeners\":[{\"name\":\"web\",\"address\":[\":80\",\"[::1]:81\"]},"
        "{\"name\":\"pg\",\"address\":\"unix:/tmp/pg\",\"mode\":\"tcp\",\"upstream\":\"b\"}],"
        "\"routes\":[{\"host\":\"A.example\",\"path\":\"/v1\",\"upstream\":\"a\"},"
        "{\"upstream\":\"b\",\"listeners\":[\"web\"]}],"
        "\"upstreams\":{\"a\":{\"algorithm\":\"ip_hash\",\"backends\":[{\"address\":"
        "\"unix:/tmp/a\",\"id\":\"one\",\"state\":\"drain\",\"max_connections\":9}]},"
        "\"b\":{\"backends\":[" BACKEND "],\"health_check\":{\"interval\":\"100ms\"}}}}");
    ck_assert_uint_eq(conf->workers, 3);
    ck_assert(!conf->workers_auto);
    ck_assert_uint_eq(conf->listeners[0].naddrs, 2);
    ck_assert_str_eq(conf->listeners[0].addr_texts[0], ":80");
    ck_assert_ptr_null(conf->listeners[0].upstream);
    ck_assert_ptr_eq(conf->listeners[1].upstream, &conf->upstreams[1]);
    ck_assert_ptr_null(conf->listeners[1].router);
    ck_assert_str_eq(conf->routes[0].host, "a.example");
    ck_assert_ptr_eq(conf->routes[0].upstream, &conf->upstreams[0]);
    ck_assert_str_eq(conf->upstreams[0].backends[0].id, "one");
    ck_assert_int_eq(conf->upstreams[0].backends[0].state, CONF_DRAIN);
    ck_assert_uint_eq(conf->upstreams[0].backends[0].max_connections, 9);
    ck_assert_uint_eq(conf->upstreams[1].health.fall, 3);
    ck_assert_uint_eq(conf->upstreams[1].health.interval, 100);
    fixture_free(conf);
}
END_TEST

START_TEST(health_check_of_grpc_asks_for_a_service)
{
    struct conf *conf = fixture_must_load(
        "{\"backends\":[" BACKEND
        "],\"health_check\":{\"type\":\"grpc\",\"path\":\"/a.B\",\"host\":\"c\"}}");
    const struct conf_health *health = &conf->upstreams[0].health;
    ck_assert_int_eq(health->type, CONF_HEALTH_GRPC);
    ck_assert_str_eq(health->path, "/a.B");
    ck_assert_str_eq(health->host, "c");
    ck_assert_ptr_null(health->method);
    fixture_free(conf);
    conf = fixture_must_load("{\"backends\":[" BACKEND "],\"health_check\":{\"type\":\"grpc\"}}");
    ck_assert_str_eq(conf->upstreams[0].health.path, "/");
    fixture_free(conf);
}
END_TEST

START_TEST(health_check_of_http_has_its_defaults)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND
                                          "],\"health_check\":{\"expect\":\"200-204,404\"}}");
    const struct conf_health *health = &conf->upstreams[0].health;
    ck_assert_int_eq(health->type, CONF_HEALTH_HTTP);
    ck_assert_str_eq(health->path, "/");
    ck_assert_str_eq(health->method, "GET");
    ck_assert_ptr_null(health->body);
    ck_assert_ptr_null(health->host);
    ck_assert_uint_eq(health->nexpect, 2);
    ck_assert_uint_eq(health->expect[0].to, 204);
    ck_assert_uint_eq(health->expect[1].from, 404);
    ck_assert_uint_eq(health->expect[1].to, 404);
    ck_assert_uint_eq(health->jitter_percent, 10);
    fixture_free(conf);
}
END_TEST

START_TEST(relative_paths_are_relative_to_the_file)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND "],\"pid_file\":\"run/pid\","
                                          "\"access_log\":\"a.log\",\"log\":{\"target\":\"/e\"}}");
    ck_assert_str_eq(conf->path, "/etc/akashd/test.json");
    ck_assert_str_eq(conf->pid_file, "/etc/akashd/run/pid");
    ck_assert_str_eq(conf->access_log.target, "/etc/akashd/a.log");
    ck_assert_str_eq(conf->log.target, "/e");
    fixture_free(conf);
}
END_TEST

START_TEST(top_level_defaults_come_from_the_machine)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND "]}");
    ck_assert_uint_eq(conf->workers, 2);
    ck_assert(conf->workers_auto);
    ck_assert_uint_eq(conf->max_connections, 1000); /* 2 workers, 1,000 files each, half */
    ck_assert(conf->has_metrics && !conf->metrics_given);
    ck_assert_uint_eq(port_of(&conf->metrics), 9100);
    ck_assert_str_eq(conf->control.path, "/run/akashd/control.sock");
    ck_assert_uint_eq(conf->control.mode, 0600);
    ck_assert(!conf->control.given);
    ck_assert_ptr_null(conf->access_log.target);
    ck_assert_uint_eq(conf->drain_timeout, 30000);
    ck_assert_uint_eq(conf->retire_timeout, 3600000);
    ck_assert_uint_eq(conf->hash >> 48, 0);
    ck_assert_uint_ne(conf->hash, 0);
    fixture_free(conf);
}
END_TEST

START_TEST(metrics_may_be_an_object_or_off)
{
    struct conf *conf = fixture_must_load("{\"backends\":[" BACKEND
                                          "],\"metrics\":{\"address\":\"127.0.0.1:1\",\"allow\":"
                                          "[\"10.0.0.0/8\",\"::1\"]}}");
    ck_assert(conf->metrics_given);
    ck_assert_uint_eq(conf->nmetrics_allow, 2);
    ck_assert_uint_eq(conf->metrics_allow[0].bits, 8);
    fixture_free(conf);
    conf = fixture_must_load("{\"backends\":[" BACKEND "],\"metrics\":false}");
    ck_assert(!conf->has_metrics);
    fixture_free(conf);
}
END_TEST

/* ---- the environment ---- */

START_TEST(environment_is_put_into_strings)
{
    struct conf *conf = fixture_must_load(
        "{\"backends\":[{\"address\":\"${HERE}:80${EMPTY}81\"}],\"pid_file\":\"/$${X}$a${EMPTY}\"}");
    ck_assert_str_eq(conf->upstreams[0].backends[0].id, "127.0.0.1:8081");
    ck_assert_str_eq(conf->pid_file, "/${X}$a");
    char *text = fixture_print(conf);
    struct conf *again = fixture_must_load(text);
    ck_assert_str_eq(again->pid_file, "/${X}$a");
    ck_assert_str_eq(again->json, text);
    free(text);
    conf_unref(again);
    fixture_free(conf);
}
END_TEST

/* ---- -T ---- */

#define ROUTED(routes) \
    "{\"listeners\":[{\"name\":\"a\",\"address\":\":80\",\"upstream\":\"u\"}],\"routes\":[" routes \
    "],\"upstreams\":{\"u\":{\"backends\":[" BACKEND "],\"timeouts\":{\"total\":7}," \
    "\"retry\":{\"on\":[\"503\"],\"attempts\":4}},\"v\":{\"backends\":[" BACKEND \
    "],\"retry\":false}}}"

START_TEST(printed_configuration_is_a_fixed_point)
{
    static const char *const cases[] = {
        first_akash,
        "{\"backends\":[{\"address\":\"three:80\"},{\"address\":\"gone:1\"}],\"metrics\":false,"
        "\"timeouts\":{\"send\":1.5},\"health_check\":false,\"access_log\":\"syslog\"}",
        "{\"listeners\":[{\"name\":\"a\",\"address\":[\":80\",\"unix:/x\"],\"mode\":\"tcp\","
        "\"upstream\":\"u\"}],\"upstreams\":{\"u\":{\"backends\":[" BACKEND "],\"health_check\":"
        "{\"type\":\"http\",\"body\":\"a \\\"b\\\" \\u00e9\"}}},\"control_socket\":\"/c\"}",
        ROUTED("{\"upstream\":\"u\",\"timeouts\":{\"response\":\"2s\"},\"retry\":{\"attempts\":1,"
               "\"backoff\":{\"max\":\"1s\"}}}"),
        ROUTED("{\"upstream\":\"u\",\"query\":{\"${HERE}\":\"${HERE}$${HERE}\"}}"),
    };
    struct conf *conf = fixture_must_load(cases[_i]);
    char *text = fixture_print(conf);
    struct conf *again = fixture_must_load(text);
    ck_assert_str_eq(again->json, text);
    ck_assert_uint_eq(again->hash, conf->hash);
    ck_assert_uint_eq(again->upstreams[0].npools, conf->upstreams[0].npools);
    free(text);
    conf_unref(again);
    fixture_free(conf);
}
END_TEST

START_TEST(route_changes_what_it_gives_of_the_policy)
{
    struct conf *conf = fixture_must_load(
        ROUTED("{\"path\":\"/a\",\"upstream\":\"u\"},"
               "{\"path\":\"/b\",\"upstream\":\"u\",\"timeouts\":{\"response\":\"2s\"},"
               "\"retry\":{\"attempts\":1,\"backoff\":{\"max\":\"1s\"}}},"
               "{\"path\":\"/c\",\"upstream\":\"u\",\"retry\":false},"
               "{\"split\":[{\"upstream\":\"u\"},{\"upstream\":\"v\"}],"
               "\"retry\":{\"on\":[\"502\"]}}"));
    const struct conf_upstream *u = &conf->upstreams[0];
    const struct conf_policy *b = conf->routes[1].policy;
    ck_assert_ptr_eq(conf->routes[0].policy, &u->policy);
    ck_assert_uint_eq(b->timeouts.response, 2000);
    ck_assert_uint_eq(b->timeouts.total, 7000);
    ck_assert_uint_eq(b->timeouts.connect, 5000);
    ck_assert_uint_eq(b->retry->attempts, 1);
    ck_assert_uint_eq(b->retry->on, CONF_RETRY_503);
    ck_assert_uint_eq(b->retry->backoff.base, 25);
    ck_assert_uint_eq(b->retry->backoff.max, 1000);
    ck_assert_uint_eq(u->policy.retry->attempts, 4);
    ck_assert_ptr_null(conf->routes[2].policy->retry);
    const struct conf_share *shares = conf->routes[3].split.shares;
    ck_assert_uint_eq(shares[0].policy->retry->attempts, 4);
    ck_assert_uint_eq(shares[1].policy->retry->attempts, 2);
    ck_assert_uint_eq(shares[1].policy->retry->on, CONF_RETRY_502);
    fixture_free(conf);
}
END_TEST

START_TEST(errors_of_a_routes_policy_have_places)
{
    fixture_expect_errors(
        ROUTED("{\"path\":\"/a\",\"upstream\":\"u\",\n\"timeouts\":{\"response\":\"x\"},\n"
               "\"retry\":{\"attempts\":0,\n\"budget\":{}}},\n"
               "{\"path\":\"/b\",\"respond\":{},\n\"retry\":false}"),
        "2:24: routes[0].timeouts.response: expected a duration from 0s to 720h such as \"10s\", or "
        "a number of seconds, got \"x\"",
        "3:21: routes[0].retry.attempts: expected a number from 1 to 10, got 0",
        "4:1: routes[0].retry.budget: of the upstream, all of whose requests share it",
        "6:1: routes[1].retry: only with upstream or split", NULL);
}
END_TEST

START_TEST(hash_follows_what_is_effective)
{
    struct conf *a = fixture_must_load("{\"backends\":[" BACKEND "]}");
    struct conf *same =
        fixture_must_load("{ /* x */ \"listen\":1902, \"Backends\":[" BACKEND "] }");
    struct conf *other = fixture_must_load("{\"listen\":1903,\"backends\":[" BACKEND "]}");
    ck_assert_uint_eq(a->hash, same->hash);
    ck_assert_uint_ne(a->hash, other->hash);
    conf_unref(same);
    conf_unref(other);
    fixture_free(a);
}
END_TEST

/* ---- errors ---- */

START_TEST(errors_of_the_short_form_have_places)
{
    fixture_expect_errors(
        "{\n  \"host\": \"a b\",\n  \"algoritm\": \"round_robin\",\n  \"mode\": \"udp\",\n"
        "  \"health_check_freq\": 0,\n"
        "  \"timeouts\": { \"conect\": 5, \"send\": \"x\" },\n  \"Backends\": [\n"
        "    { \"weigth\": 3, \"address\": \"127.0.0.1:1\", \"weight\": \"heavy\" },\n"
        "    { \"address\": \"127.0.0.1\", \"paths\": [\"api\"] },\n    7\n  ]\n}",
        "2:11: host: expected a host name or an IP address, got \"a b\"",
        "3:3: algoritm: unknown key; did you mean \"algorithm\"?",
        "4:11: mode: expected \"http\" or \"tcp\", got \"udp\"",
        "5:24: health_check_freq: expected a duration from 10ms to 24h such as \"10s\", or a number "
        "of seconds, got 0",
        "6:17: timeouts.conect: unknown key; did you mean \"connect\"?",
        "6:38: timeouts.send: expected a duration from 0s to 720h such as \"10s\", or a number of "
        "seconds, got \"x\"",
        "8:7: Backends[0].weigth: unknown key; did you mean \"weight\"?",
        "8:56: Backends[0].weight: expected a number from 1 to 256, got \"heavy\"",
        "9:18: Backends[1].address: \"127.0.0.1\": the port is missing",
        "9:41: Backends[1].paths[0]: expected a path that begins with '/', got \"api\"",
        "10:5: Backends[2]: expected an object, got 7", NULL);
}
END_TEST

START_TEST(rules_of_the_short_form_are_kept)
{
    static const char *const cases[][2] = {
        {"{}", "1:1: Backends: missing"},
        {"[]", "1:1: expected an object, got a list"},
        {"{\"Backends\":[]}", "1:13: Backends: expected at least one element"},
        {"{\"Backends\":[" BACKEND "],\"backends\":[]}",
         "1:44: backends: the same as \"Backends\" on line 1"},
        {"{\"backends\":[" BACKEND "],\"tls_key_file\":\"k\"}",
         "1:44: tls_key_file: \"tls_cert_file\" and \"tls_key_file\" go together"},
        {"{\"backends\":[" BACKEND "],\"health_check\":false,\"health_check_freq\":1}",
         "1:65: health_check_freq: excluded by \"health_check\""},
        {"{\"backends\":[" BACKEND "],\"health_check\":{},\"timeout_seconds\":1}",
         "1:62: timeout_seconds: excluded by \"health_check\""},
        {"{\"backends\":[" BACKEND "],\"max_connections\":1001}",
         "1:62: max_connections: expected at most 1000 (half of the 1000 open files of each of 2 "
         "workers), got 1001"},
        {"{\"backends\":[" BACKEND "],\"user\":\"nobody_else\"}",
         "1:51: user: there is no user nobody_else"},
        {"{\"backends\":[" BACKEND "," BACKEND "]}",
         "1:43: backends[1]: the id 127.0.0.1:8081 is that of the backend on line 1; give it "
         "another"},
        {"{\"backends\":[" BACKEND "],\"pid_file\":\"${NOPE}\"}",
         "1:55: pid_file: the environment has no NOPE"},
        {"{\"backends\":[" BACKEND "],\"pid_file\":\"${NO PE}\"}",
         "1:55: pid_file: expected a name and '}' after \"${\"; a literal one is written \"$${\""},
        {"{\"backends\":[" BACKEND "],\"repeat\":{}}", "1:44: repeat: unknown key"},
        {"{\"backends\":[" BACKEND "],\"health_check\":{\"type\":\"tcp\",\"path\":\"/\"}}",
         "1:73: health_check.path: only a check of type \"http\" or \"grpc\" has this"},
        {"{\"backends\":[" BACKEND "],\"health_check\":{\"type\":\"grpc\",\"body\":\"x\"}}",
         "1:74: health_check.body: only a check of type \"http\" has this"},
        {"{\"health_check\":{\"method\":\"HEAD\",\"body\":\"ok\"},\"Backends\":[" BACKEND "]}",
         "1:41: health_check.body: an answer to HEAD has no body"},
    };
    fixture_expect_errors(cases[_i][0], cases[_i][1], NULL);
}
END_TEST
#define RULES 16

START_TEST(errors_of_the_long_form_have_places)
{
    fixture_expect_errors(
        "{ \"listeners\": [\n"
        "  { \"name\": \"a\", \"address\": [\":80\", \":80\"], \"mode\": \"tcp\" },\n"
        "  { \"name\": \"a\", \"address\": \"127.0.0.1:81\", \"upstream\": \"nix\",\n"
        "    \"tls\": { \"certificates\": [ { \"cert\": \"x\", \"key\": \"/y\" } ],\n"
        "      \"client_auth\": \"require\", \"alpn\": [\"h3\"] } } ],\n"
        "  \"host\": \"x\",\n"
        "  \"routes\": [ { \"path\": \"/a\", \"path_exact\": \"/b\", \"upstream\": \"v\",\n"
        "    \"listeners\": [\"b\", \"c\"], \"redirect\": {} } ],\n"
        "  \"upstreams\": { \"u\": { \"backends\": [ " BACKEND " ] }, \"b d\": {} } }",
        "2:3: listeners[0].upstream: missing; tcp mode needs it",
        "2:37: listeners[0].address[1]: :80 is listened on already",
        "3:13: listeners[1].name: there is a listener a already",
        "3:57: listeners[1].upstream: there is no upstream nix",
        "4:12: listeners[1].tls.client_ca: missing; client_auth needs it",
        "4:42: listeners[1].tls.certificates[0].cert: cannot read /etc/akashd/x: No such file",
        "4:54: listeners[1].tls.certificates[0].key: cannot read /y: No such file",
        "5:42: listeners[1].tls.alpn[0]: expected \"h2\" or \"http/1.1\" in http mode, "
        "got \"h3\"",
        "6:3: host: a key of the short form cannot stand beside \"listeners\"",
        "7:31: routes[0].path_exact: excluded by \"path\"",
        "7:63: routes[0].upstream: there is no upstream v",
        "8:19: routes[0].listeners[0]: there is no listener b",
        "8:24: routes[0].listeners[1]: there is no listener c",
        "8:30: routes[0].redirect: excluded by \"upstream\"",
        "8:42: routes[0].redirect: expected scheme, host or path: it leads to itself",
        "9:73: upstreams.b d: expected a name of 1 to 64 letters, digits, '.', '_' and '-'",
        "9:80: upstreams.b d.backends: missing", NULL);
}
END_TEST

START_TEST(listener_in_tcp_mode_has_routes_by_name_alone)
{
    fixture_expect_errors(
        "{ \"listeners\": [\n"
        "  { \"name\": \"a\", \"address\": \":80\", \"mode\": \"tcp\", \"upstream\": \"u\" },\n"
        "  { \"name\": \"b\", \"address\": \":81\", \"mode\": \"tcp\", \"upstream\": \"u\",\n"
        "    \"tls\": { \"certificates\": [ { \"cert\": \"x\", \"key\": \"/y\" } ] } } ],\n"
        "  \"routes\": [ { \"listeners\": [\"a\"], \"upstream\": \"u\" },\n"
        "    { \"listeners\": [\"a\"], \"host\": \"x.test\", \"redirect\": {\"path\":\"/\"},\n"
        "      \"methods\": [\"GET\"] },\n"
        "    { \"listeners\": [\"b\"], \"host\": \"x.test\", \"upstream\": \"u\" } ],\n"
        "  \"upstreams\": { \"u\": { \"backends\": [ " BACKEND " ] } } }",
        "4:42: listeners[1].tls.certificates[0].cert: cannot read /etc/akashd/x: No such file",
        "4:54: listeners[1].tls.certificates[0].key: cannot read /y: No such file",
        "5:31: routes[0].listeners[0]: listener a is in tcp mode, where a route goes by host (the name "
        "that TLS asks for) alone",
        "6:45: routes[1].redirect: not with listener a, which is in tcp mode",
        "7:7: routes[1].methods: not with listener a, which is in tcp mode",
        "8:21: routes[2].listeners[0]: listener b is in tcp mode and ends TLS itself: it has no routes",
        NULL);
}
END_TEST

START_TEST(syntax_error_stands_alone)
{
    fixture_expect_errors("{\"algoritm\":1,\n\"mode\" 2}", "2:8: expected ':'", NULL);
}
END_TEST

START_TEST(many_errors_are_counted)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    putc('{', out);
    for (int i = 0; i < 150; i++) {
        fprintf(out, "\"unknown%d\":1,\n", i);
    }
    fputs("\"backends\":[" BACKEND "]}", out);
    fclose(out);
    ck_assert_ptr_null(fixture_load(text));
    ck_assert_uint_eq(fixture_errors()->nerrors, 101);
    ck_assert_str_eq(fixture_errors()->errors[100], "/etc/akashd/test.json: and 50 more");
    free(text);
    fixture_free(NULL);
}
END_TEST

/* ---- examples ---- */

static int
any_file(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    (void)src;
    (void)path;
    (void)why;
    (void)why_size;
    *out = SLICE("");
    return 0;
}

static void
expect_loads(const char *path)
{
    char *text = calloc(1, 65536);
    struct conf_source source = *fixture_source();
    struct conf_errors errors;
    FILE *in = fopen(path, "r");
    ck_assert_msg(in != NULL, "%s", path);
    size_t len = fread(text, 1, 65535, in);
    fclose(in);
    source.read_file = any_file;
    source.without_keys = true; /* certificates are the operator's */
    struct conf *conf = conf_load(path, slice_of(text, len), &source, &errors);
    ck_assert_msg(conf != NULL, "%s", errors.nerrors ? errors.errors[0] : path);
    ck_assert_uint_eq(errors.nwarnings, 0);
    conf_errors_fini(&errors);
    conf_unref(conf);
    free(text);
}

START_TEST(every_example_loads)
{
    char folder[2048], path[4096];
    unsigned n = 0;
    const char *top = getenv("srcdir");
    snprintf(folder, sizeof(folder), "%s/conf/examples", top ? top : ".");
    DIR *dir = opendir(folder);
    ck_assert_msg(dir != NULL, "%s: set srcdir to the top of the sources", folder);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (strstr(entry->d_name, ".json")) {
            snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
            expect_loads(path);
            n++;
        }
    }
    closedir(dir);
    ck_assert_uint_ge(n, 4);
}
END_TEST

static const char *const proxy_lists[] = {"\"unix\"", "[\"10.0.0.0/8\",\"unix\"]"};

START_TEST(accept_proxy_is_networks_or_unix)
{
    char text[256];
    static const struct addr_ip local = {.family = AF_UNIX};
    struct addr_ip ten = {.family = AF_INET, .bytes = {10, 1, 2, 3}};
    snprintf(text, sizeof(text), "{\"accept_proxy\":%s,\"Backends\":[" BACKEND "]}",
             proxy_lists[_i]);
    struct conf *conf = fixture_must_load(text);
    const struct conf_listener *l = &conf->listeners[0];
    ck_assert_uint_eq(l->naccept_proxy, (unsigned)_i + 1);
    ck_assert(cidr_contains(&l->accept_proxy[l->naccept_proxy - 1], &local));
    ck_assert(!cidr_contains(&l->accept_proxy[l->naccept_proxy - 1], &ten));
    ck_assert(_i == 0 || cidr_contains(&l->accept_proxy[0], &ten));
    fixture_free(conf);
}
END_TEST

START_TEST(accept_proxy_is_nothing_else)
{
    fixture_expect_errors("{\"accept_proxy\":[\"::1\",\"lan\"],\"Backends\":[" BACKEND "]}",
                          "1:24: accept_proxy[1]: expected a network such as \"10.0.0.0/8\", or "
                          "\"unix\", got \"lan\"",
                          NULL);
}
END_TEST

static void
add_errors(Suite *suite)
{
    TCase *tc = tcase_create("errors");
    tcase_add_test(tc, errors_of_the_short_form_have_places);
    tcase_add_loop_test(tc, rules_of_the_short_form_are_kept, 0, RULES);
    tcase_add_test(tc, errors_of_the_long_form_have_places);
    tcase_add_test(tc, listener_in_tcp_mode_has_routes_by_name_alone);
    tcase_add_test(tc, syntax_error_stands_alone);
    tcase_add_test(tc, accept_proxy_is_nothing_else);
    tcase_add_test(tc, many_errors_are_counted);
    suite_add_tcase(suite, tc);
}

Suite *
conf_suite(void)
{
    Suite *suite = suite_create("conf");
    TCase *tc = tcase_create("conf");
    tcase_add_test(tc, first_akash_file_means_what_it_meant);
    tcase_add_test(tc, short_form_has_its_defaults);
    tcase_add_loop_test(tc, host_and_port_make_an_address, 0, 5);
    tcase_add_test(tc, keys_of_the_long_form_find_their_place);
    tcase_add_test(tc, health_check_object_takes_the_place_of_short_keys);
    tcase_add_test(tc, longest_path_of_segments_chooses_the_pool);
    tcase_add_test(tc, where_all_have_paths_the_rest_goes_to_all);
    tcase_add_test(tc, upstream_without_paths_has_one_pool);
    tcase_add_test(tc, every_address_of_a_name_is_a_backend);
    tcase_add_test(tc, srv_records_give_port_weight_and_order);
    tcase_add_test(tc, srv_records_without_weight_leave_that_of_the_file);
    tcase_add_test(tc, names_are_kept_once_and_without_port);
    tcase_add_test(tc, resolvers_are_addresses);
    tcase_add_test(tc, name_that_does_not_resolve_is_a_warning);
    tcase_add_test(tc, long_form_is_read);
    tcase_add_loop_test(tc, accept_proxy_is_networks_or_unix, 0, 2);
    tcase_add_test(tc, health_check_of_http_has_its_defaults);
    tcase_add_test(tc, health_check_of_grpc_asks_for_a_service);
    tcase_add_test(tc, relative_paths_are_relative_to_the_file);
    tcase_add_test(tc, top_level_defaults_come_from_the_machine);
    tcase_add_test(tc, metrics_may_be_an_object_or_off);
    tcase_add_test(tc, environment_is_put_into_strings);
    tcase_add_loop_test(tc, printed_configuration_is_a_fixed_point, 0, 5);
    tcase_add_test(tc, route_changes_what_it_gives_of_the_policy);
    tcase_add_test(tc, errors_of_a_routes_policy_have_places);
    tcase_add_test(tc, hash_follows_what_is_effective);
    tcase_add_test(tc, every_example_loads);
    suite_add_tcase(suite, tc);
    add_errors(suite);
    return suite;
}
