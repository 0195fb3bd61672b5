/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_control.c - lines from clients of the control socket.
 */
#include "master/control_request.h"
#include "t/fuzz/fuzz.h"

/* As akashctl.1 has it. */
static void
expect_members(const struct control_request *r)
{
    enum control_command c = r->command;
    bool is_of_backend = c == CONTROL_READY || c == CONTROL_DRAIN || c == CONTROL_MAINT ||
                         c == CONTROL_WEIGHT || c == CONTROL_BREAKER;
    FUZZ_EXPECT((r->backend != NULL) == is_of_backend);
    FUZZ_EXPECT((r->state != NULL) == (c == CONTROL_BREAKER));
    FUZZ_EXPECT((r->level != NULL) == (c == CONTROL_LOG));
    FUZZ_EXPECT((r->url != NULL) == (c == CONTROL_EXPLAIN));
    FUZZ_EXPECT((!r->host && !r->method && !r->client) || c == CONTROL_EXPLAIN);
    FUZZ_EXPECT((r->name != NULL) == (r->text != NULL));
    FUZZ_EXPECT(!r->text || c == CONTROL_DIFF);
    FUZZ_EXPECT(r->weight == 0 || c == CONTROL_WEIGHT);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char why[128] = "";
    char *line = fuzz_exact_copy(bytes, len);
    struct control_request request;
    enum control_command command =
        control_request_parse(slice_of(line, len), &request, why, sizeof(why));
    FUZZ_EXPECT(command <= CONTROL_BAD && command == request.command);
    if (command != CONTROL_BAD) {
        expect_members(&request);
    }
    control_request_fini(&request);
    FUZZ_EXPECT(command != CONTROL_BAD || (why[0] != '\0' && memchr(why, '\0', sizeof(why))));
    free(line);
    return 0;
}
