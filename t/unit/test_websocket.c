/* SPDX-License-Identifier: Apache-2.0
 *
 * test_websocket.c - keys of opening handshakes.
 */
#include <check.h>
#include <string.h>

#include "shared/websocket.h"
#include "t/unit/suites.h"

START_TEST(key_is_the_base64_of_its_bytes)
{
    char out[WEBSOCKET_KEY_LEN + 1];
    struct slice key = websocket_write_key("the sample nonce", out);
    ck_assert(slice_eq(key, SLICE("dGhlIHNhbXBsZSBub25jZQ==")));
}
END_TEST

START_TEST(accept_is_that_of_the_rfc)
{
    char out[WEBSOCKET_ACCEPT_LEN + 1];
    struct slice accept = websocket_write_accept(SLICE("dGhlIHNhbXBsZSBub25jZQ=="), out);
    ck_assert(slice_eq(accept, SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
}
END_TEST

START_TEST(only_the_answer_to_the_key_is_one)
{
    struct slice key = SLICE("dGhlIHNhbXBsZSBub25jZQ==");
    ck_assert(websocket_is_accept(SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), key));
    ck_assert(!websocket_is_accept(SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo"), key));
    ck_assert(!websocket_is_accept(SLICE("S3pPLMBiTxaQ9kYGzzhZRbK+xOo="), key));
    ck_assert(!websocket_is_accept(key, key));
    ck_assert(!websocket_is_accept(SLICE(""), key));
    ck_assert(!websocket_is_accept(SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), SLICE("")));
}
END_TEST

Suite *
websocket_suite(void)
{
    Suite *s = suite_create("websocket");
    TCase *tc = tcase_create("handshake");
    tcase_add_test(tc, key_is_the_base64_of_its_bytes);
    tcase_add_test(tc, accept_is_that_of_the_rfc);
    tcase_add_test(tc, only_the_answer_to_the_key_is_one);
    suite_add_tcase(s, tc);
    return s;
}
