/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc.c - content types, timeouts and status codes of gRPC.
 */
#include <check.h>
#include <inttypes.h>

#include "shared/grpc.h"
#include "shared/reason.h"
#include "t/unit/suites.h"
#include "worker/grpc.h"

START_TEST(content_type_is_told)
{
    static const struct {
        const char *text;
        bool is_grpc;
    } cases[] = {
        {"application/grpc", true},
        {"application/grpc+proto", true},
        {"application/grpc;charset=x", true},
        {"application/grpc ; x=y", true},
        {"Application/gRPC+json", true},
        {"application/grpc-web", false},
        {"application/grpc-web+proto", false},
        {"application/grpcx", false},
        {"application/json", false},
        {"application/grp", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(grpc_is_content_type(slice_from_str(cases[i].text)) == cases[i].is_grpc, "%s",
                      cases[i].text);
    }
}
END_TEST

#define MALFORMED UINT64_MAX
START_TEST(timeout_is_read_strictly)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"1S", 1000},
        {"250m", 250},
        {"2M", 120000},
        {"1H", 3600000},
        {"0m", 0},
        {"1u", 1},
        {"1000u", 1},
        {"1001u", 2},
        {"1n", 1},
        {"0n", 0},
        {"99999999n", 100},
        {"99999999H", 99999999ull * 3600000},
        {"00000001S", 1000},
        {"", MALFORMED},
        {"S", MALFORMED},
        {"1", MALFORMED},
        {"100000000n", MALFORMED},
        {"000000001S", MALFORMED},
        {"1s", MALFORMED},
        {"1 S", MALFORMED},
        {"-1S", MALFORMED},
        {"+1S", MALFORMED},
        {"1.5S", MALFORMED},
        {"1SS", MALFORMED},
        {" 1S", MALFORMED},
        {"1S ", MALFORMED},
        {"0x1S", MALFORMED},
        {"1h", MALFORMED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t ms = 0;
        bool is_good = grpc_parse_timeout(slice_from_str(cases[i].text), &ms);
        ck_assert_msg((is_good ? ms : MALFORMED) == cases[i].ms, "\"%s\": %" PRIu64, cases[i].text,
                      ms);
    }
}
END_TEST

START_TEST(code_is_read_strictly)
{
    static const struct {
        const char *text;
        unsigned code;
    } cases[] = {
        {"0", GRPC_OK},          {"14", GRPC_UNAVAILABLE}, {"16", GRPC_UNAUTHENTICATED},
        {"17", GRPC_CODE_COUNT}, {"99", GRPC_CODE_COUNT},  {"100", GRPC_CODE_COUNT},
        {"", GRPC_CODE_COUNT},   {"00", GRPC_CODE_COUNT},  {"-1", GRPC_CODE_COUNT},
        {"1 ", GRPC_CODE_COUNT}, {"OK", GRPC_CODE_COUNT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(grpc_parse_code(slice_from_str(cases[i].text)) == cases[i].code, "\"%s\"",
                      cases[i].text);
    }
}
END_TEST

START_TEST(codes_have_names)
{
    ck_assert_int_eq(GRPC_CODE_COUNT, 17);
    ck_assert_str_eq(grpc_code_name(0), "OK");
    ck_assert_str_eq(grpc_code_name(4), "DEADLINE_EXCEEDED");
    ck_assert_str_eq(grpc_code_name(8), "RESOURCE_EXHAUSTED");
    ck_assert_str_eq(grpc_code_name(14), "UNAVAILABLE");
    ck_assert_str_eq(grpc_code_name(GRPC_CODE_COUNT), "OTHER");
}
END_TEST

START_TEST(answer_without_code_is_told_by_its_status)
{
    ck_assert_int_eq(grpc_code_of_status(200), GRPC_UNKNOWN);
    ck_assert_int_eq(grpc_code_of_status(404), GRPC_UNIMPLEMENTED);
    ck_assert_int_eq(grpc_code_of_status(429), GRPC_UNAVAILABLE);
    ck_assert_int_eq(grpc_code_of_status(503), GRPC_UNAVAILABLE);
    ck_assert_int_eq(grpc_code_of_status(500), GRPC_UNKNOWN);
}
END_TEST

/* grpc-message is percent-encoded; the table is such that nothing is to be encoded. */
START_TEST(every_reason_can_be_told_to_grpc)
{
    for (int why = REASON_none + 1; why < REASON_COUNT; why++) {
        struct http_field fields[GRPC_FAILURE_FIELDS];
        char text[GRPC_FAILURE_TEXT];
        grpc_put_failure(fields, text, (enum reason)why);
        unsigned code = grpc_parse_code(fields[0].value);
        ck_assert_msg(code > GRPC_OK && code < GRPC_CODE_COUNT, "%s", reason_table[why].token);
        struct slice message = fields[1].value;
        ck_assert_ptr_eq(message.ptr + message.len, text + strlen(text));
        for (size_t i = 0; i < message.len; i++) {
            char c = message.ptr[i];
            ck_assert_msg(c >= ' ' && c <= '~' && c != '%', "%s", reason_table[why].token);
        }
    }
}
END_TEST

START_TEST(reasons_have_their_codes)
{
    ck_assert_int_eq(reason_table[REASON_no_backend].grpc_code, GRPC_UNAVAILABLE);
    ck_assert_int_eq(reason_table[REASON_connect_refused].grpc_code, GRPC_UNAVAILABLE);
    ck_assert_int_eq(reason_table[REASON_total_timeout].grpc_code, GRPC_DEADLINE_EXCEEDED);
    ck_assert_int_eq(reason_table[REASON_over_limit].grpc_code, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_int_eq(reason_table[REASON_no_route].grpc_code, GRPC_UNIMPLEMENTED);
    ck_assert_uint_eq(grpc_status_for(REASON_no_backend, 503), 200);
    ck_assert_uint_eq(grpc_status_for(REASON_client_closed, 499), 499);
    ck_assert_uint_eq(grpc_status_for(REASON_send_timeout, 0), 0);
}
END_TEST

Suite *
grpc_suite(void)
{
    Suite *suite = suite_create("grpc");
    TCase *tc = tcase_create("grpc");
    tcase_add_test(tc, content_type_is_told);
    tcase_add_test(tc, timeout_is_read_strictly);
    tcase_add_test(tc, code_is_read_strictly);
    tcase_add_test(tc, codes_have_names);
    tcase_add_test(tc, answer_without_code_is_told_by_its_status);
    tcase_add_test(tc, every_reason_can_be_told_to_grpc);
    tcase_add_test(tc, reasons_have_their_codes);
    suite_add_tcase(suite, tc);
    return suite;
}
