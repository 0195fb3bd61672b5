/* SPDX-License-Identifier: Apache-2.0
 *
 * test_router.c - the route for a host and a path.
 */
#include "conf/router.h"

#include <check.h>

#include "conf/path_set.h"
#include "conf/pattern.h"
#include "conf/route.h"
#include "t/unit/suites.h"

static struct conf_arena *arena;

static void
begin(void)
{
    arena = conf_arena_new();
}

static void
end(void)
{
    conf_arena_free(arena);
}

/* The number of the route that is found; -1: none, -2: the listener's own, -3: a pattern gave up.
 */
static int
find_for(const struct conf_route *routes, size_t n, const struct conf_route *last,
         const struct http_msg *req)
{
    const struct pattern *gave_up;
    const struct conf_route **list = conf_arena_array(arena, n, sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        list[i] = &routes[i];
    }
    const struct conf_router *router = conf_router_new(arena, list, (unsigned)n, last);
    const struct conf_route *found = conf_router_find(router, req, &gave_up);
    ck_assert(!gave_up || !found);
    if (!found) {
        return gave_up ? -3 : -1;
    }
    return found == last ? -2 : (int)(found - routes);
}

static int
find(const struct conf_route *routes, size_t n, const struct conf_route *last, const char *host,
     const char *path)
{
    struct http_msg req = {.method_text = SLICE("GET"),
                           .authority = slice_from_str(host),
                           .target = slice_from_str(path),
                           .path = slice_from_str(path)};
    return find_for(routes, n, last, &req);
}

static int
find_by_method(const struct conf_route *routes, size_t n, const char *method, const char *host,
               const char *path)
{
    struct http_msg req = {.method_text = slice_from_str(method),
                           .authority = slice_from_str(host),
                           .target = slice_from_str(path),
                           .path = slice_from_str(path)};
    return find_for(routes, n, NULL, &req);
}

static const struct conf_route by_host[] = {
    {.host = "*.example.com"},
    {.host = "www.example.com"},
    {.host = "*.www.example.com"},
    {.host = "[::1]"},
};

START_TEST(host_is_exact_then_longest_wildcard_then_any)
{
    static const struct {
        const char *host;
        int route;
    } cases[] = {
        {"www.example.com", 1},
        {"WWW.Example.COM", 1},
        {"www.example.com:8080", 1},
        {"www.example.com.", 1},
        {"www.example.com.:80", 1},
        {"api.example.com", 0},
        {"a.b.example.com", 0},
        {"x.www.example.com", 2},
        {"example.com", -2},
        {".example.com", -2},
        {"notexample.com", -2},
        {"", -2},
        {":80", -2},
        {"[::1]", 3},
        {"[::1]:80", 3},
        {"[::2]", -2},
        {".", -2},
        {"..example.com", 0},
        {"www.example.com.evil", -2},
    };
    static const struct conf_route last;
    ck_assert_int_eq(find(by_host, 4, &last, cases[_i].host, "/"), cases[_i].route);
}
END_TEST
#define HOST_CASES 19

static const struct conf_route by_path[] = {
    {.path = "/api"},         {.path = "/api/v2"}, {.path_exact = "/api/v2"},
    {.path_exact = "/login"}, {.path = "/slash/"}, {.path = "/api"},
};

START_TEST(path_is_exact_then_longest_prefix_of_segments)
{
    static const struct {
        const char *path;
        int route;
    } cases[] = {
        {"/api", 0},      {"/api/", 0},    {"/api/x", 0},   {"/apix", -1},   {"/api/v2", 2},
        {"/api/v2/x", 1}, {"/api/v22", 0}, {"/login", 3},   {"/login/", -1}, {"/", -1},
        {"/slash", -1},   {"/slash/", 4},  {"/slash/x", 4}, {"/API", -1},    {"*", -1},
        {"", -1},         {"/api//v2", 0},
    };
    ck_assert_int_eq(find(by_path, 6, NULL, "h", cases[_i].path), cases[_i].route);
}
END_TEST
#define PATH_CASES 17

START_TEST(host_without_matching_path_falls_through)
{
    static const struct conf_route routes[] = {
        {.host = "a.example.com", .path = "/one"},
        {.host = "*.example.com", .path = "/two"},
        {.path = "/three"},
        {0},
    };
    ck_assert_int_eq(find(routes, 4, NULL, "a.example.com", "/one/x"), 0);
    ck_assert_int_eq(find(routes, 4, NULL, "a.example.com", "/two"), 1);
    ck_assert_int_eq(find(routes, 4, NULL, "a.example.com", "/three"), 2);
    ck_assert_int_eq(find(routes, 4, NULL, "a.example.com", "/four"), 3);
}
END_TEST

START_TEST(root_prefix_is_for_every_path)
{
    static const struct conf_route routes[] = {{.path = "/"}, {0}};
    ck_assert_int_eq(find(routes, 2, NULL, "h", "/x/y"), 0);
    ck_assert_int_eq(find(routes, 2, NULL, "h", "*"), 1);
}
END_TEST

START_TEST(first_in_the_file_wins_among_equals)
{
    static const struct conf_route routes[] = {{.host = "h"}, {.host = "h"}, {0}, {0}};
    ck_assert_int_eq(find(routes, 4, NULL, "h", "/"), 0);
    ck_assert_int_eq(find(routes, 4, NULL, "i", "/"), 2);
}
END_TEST

START_TEST(only_route_is_found_whatever_the_request)
{
    static const struct conf_route everything[] = {{0}}, last;
    ck_assert_int_eq(find(everything, 1, NULL, "", "*"), 0);
    ck_assert_int_eq(find(everything, 1, &last, "", "*"), 0);
    ck_assert_int_eq(find(everything, 0, &last, "x", "/"), -2);
    ck_assert_int_eq(find(everything, 0, NULL, "x", "/"), -1);
}
END_TEST

START_TEST(many_hosts_and_paths_are_told_apart)
{
    enum { N = 500 };
    struct conf_route *routes = conf_arena_array(arena, N, sizeof(*routes));
    for (int i = 0; i < N; i++) {
        routes[i].host = i % 2 ? conf_arena_format(arena, "h%d.example", i) : NULL;
        routes[i].path = conf_arena_format(arena, "/p/%d", i);
    }
    for (int i = 0; i < N; i += 7) {
        char *host = conf_arena_format(arena, "h%d.example", i);
        char *path = conf_arena_format(arena, "/p/%d/x", i);
        ck_assert_int_eq(find(routes, N, NULL, host, path), i);
        ck_assert_int_eq(find(routes, N, NULL, "other", path), i % 2 ? -1 : i);
    }
}
END_TEST

START_TEST(long_hosts_and_paths_are_harmless)
{
    char text[5001];
    memset(text, '.', 5000);
    text[5000] = '\0';
    ck_assert_int_eq(find(by_host, 4, NULL, text, "/"), -1);
    memset(text, '/', 5000);
    ck_assert_int_eq(find(by_path, 6, NULL, "h", text), -1);
}
END_TEST

START_TEST(path_set_keeps_the_first_of_equals)
{
    struct path_set *set = path_set_new(arena, 3);
    path_set_add(set, "/a", 1);
    path_set_add(set, "/a", 2);
    path_set_add(set, "/a/b", 3);
    ck_assert_int_eq(path_set_find(set, SLICE("/a/c")), 1);
    ck_assert_int_eq(path_set_find(set, SLICE("/a/b/c")), 3);
    ck_assert_int_eq(path_set_find_exact(set, SLICE("/a/b/c")), -1);
    ck_assert_int_eq(path_set_find(NULL, SLICE("/a")), -1);
}
END_TEST

static char *only_post[] = {"POST", NULL};

START_TEST(route_whose_conditions_fail_is_passed_by)
{
    const struct conf_route routes[] = {
        {.host = "a.b.test", .path = "/x/y", .methods = only_post},
        {.host = "a.b.test", .path = "/x"},
        {.host = "*.b.test", .path_exact = "/x/y", .methods = only_post},
        {.host = "*.test", .path = "/z"},
        {.host = "*.b.test", .path = "/z", .methods = only_post},
        {.path = "/", .methods = only_post},
        {.path = "/z"},
    };
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "a.b.test", "/x/y/1"), 0);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "a.b.test", "/x/y/1"), 1);
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "c.b.test", "/x/y"), 2);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "c.b.test", "/x/y"), -1);
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "c.b.test", "/z"), 4);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "c.b.test", "/z"), 3);
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "other", "/q"), 5);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "other", "/q"), -1);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "a.b.test", "/z"), 3);
}
END_TEST

START_TEST(shorter_prefixes_follow_longer_ones_whatever_their_place)
{
    const struct conf_route routes[] = {
        {.path = "/a", .methods = only_post},
        {.path = "/a/b/c", .methods = only_post},
        {.path = "/a"},
        {.path = "/a/b", .methods = only_post},
        {.path = "/a/bc"},
        {.path = "/a/b/c"},
        {.path = "/"},
    };
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "h", "/a/b/c/d"), 1);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "h", "/a/b/c/d"), 5);
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "h", "/a/b/x"), 3);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "h", "/a/b/x"), 2);
    ck_assert_int_eq(find_by_method(routes, 7, "POST", "h", "/a/bc/x"), 4);
    ck_assert_int_eq(find_by_method(routes, 7, "GET", "h", "/ab"), 6);
    ck_assert_int_eq(find_by_method(routes, 5, "GET", "h", "/ab"), -1);
}
END_TEST

START_TEST(regular_expressions_come_after_prefixes_and_before_any_path)
{
    char why[160];
    struct pattern *digits = pattern_new(arena, "/[0-9]+$", why, sizeof(why));
    struct pattern *bad = pattern_new(arena, "^(/|a+)+$", why, sizeof(why));
    ck_assert_ptr_nonnull(digits);
    ck_assert_ptr_nonnull(bad);
    const struct conf_route routes[] = {
        {.host = NULL},
        {.path_pattern = digits},
        {.path = "/p"},
        {.path_pattern = bad, .host = "slow"},
    };
    ck_assert_int_eq(find(routes, 4, NULL, "h", "/x/12"), 1);
    ck_assert_int_eq(find(routes, 4, NULL, "h", "/x/12x"), 0);
    ck_assert_int_eq(find(routes, 4, NULL, "h", "/p/12"), 2);
    ck_assert_int_eq(find(routes, 4, NULL, "slow", "/aaa"), 3);
    ck_assert_int_eq(find(routes, 4, NULL, "slow", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"),
                     -3);
}
END_TEST

Suite *
router_suite(void)
{
    Suite *suite = suite_create("router");
    TCase *tc = tcase_create("router");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_loop_test(tc, host_is_exact_then_longest_wildcard_then_any, 0, HOST_CASES);
    tcase_add_loop_test(tc, path_is_exact_then_longest_prefix_of_segments, 0, PATH_CASES);
    tcase_add_test(tc, host_without_matching_path_falls_through);
    tcase_add_test(tc, root_prefix_is_for_every_path);
    tcase_add_test(tc, first_in_the_file_wins_among_equals);
    tcase_add_test(tc, only_route_is_found_whatever_the_request);
    tcase_add_test(tc, many_hosts_and_paths_are_told_apart);
    tcase_add_test(tc, long_hosts_and_paths_are_harmless);
    tcase_add_test(tc, path_set_keeps_the_first_of_equals);
    tcase_add_test(tc, route_whose_conditions_fail_is_passed_by);
    tcase_add_test(tc, shorter_prefixes_follow_longer_ones_whatever_their_place);
    tcase_add_test(tc, regular_expressions_come_after_prefixes_and_before_any_path);
    suite_add_tcase(suite, tc);
    return suite;
}
