/* SPDX-License-Identifier: Apache-2.0
 *
 * options_doc.c - the JSON Schema and the manual page, from the option table.
 *
 * conf/akashd.schema.json and conf/akashd.json.5 are what is printed here; a test holds them equal.
 */
#include <inttypes.h>
#include <json-c/json.h>

#include "conf/options.h"

static const struct option *
table_end(void)
{
    return option_table + option_table_len;
}

/* ---- JSON Schema (draft 2020-12) ---- */

static void
set(struct json_object *object, const char *key, struct json_object *value)
{
    json_object_object_add(object, key, value);
}

static void
set_text(struct json_object *object, const char *key, const char *text)
{
    set(object, key, json_object_new_string(text));
}

static struct json_object *
schema_of_type(const char *type)
{
    struct json_object *schema = json_object_new_object();
    set_text(schema, "type", type);
    return schema;
}

static struct json_object *
schema_of_number(const struct option *row)
{
    struct json_object *schema = schema_of_type("integer");
    set(schema, "minimum", json_object_new_int64((int64_t)row->min));
    if (row->max) {
        set(schema, "maximum", json_object_new_int64((int64_t)row->max));
    }
    return schema;
}

static struct json_object *
schema_of_pattern(const char *pattern)
{
    struct json_object *schema = schema_of_type("string");
    set_text(schema, "pattern", pattern);
    return schema;
}

static struct json_object *
schema_of_words(const char *words)
{
    struct json_object *schema = json_object_new_object(), *list = json_object_new_array();
    while (*words) {
        size_t len = strcspn(words, "|");
        json_object_array_add(list, json_object_new_string_len(words, (int)len));
        words += len + (words[len] == '|');
    }
    set(schema, "enum", list);
    return schema;
}

/* A title as a word. */
static const char *
name_of(enum option_owner owner, char *buf, size_t size)
{
    snprintf(buf, size, "%s", option_objects[owner].title);
    for (char *at = strchr(buf, ' '); at; at = strchr(at, ' ')) {
        *at = '_';
    }
    return buf;
}

static struct json_object *
schema_of_reference(enum option_owner owner)
{
    char name[32], path[64];
    struct json_object *schema = json_object_new_object();
    snprintf(path, sizeof(path), "#/$defs/%s", name_of(owner, name, sizeof(name)));
    set_text(schema, "$ref", path);
    return schema;
}

static struct json_object *
schema_of_either(struct json_object *a, struct json_object *b)
{
    struct json_object *schema = json_object_new_object(), *list = json_object_new_array();
    json_object_array_add(list, a);
    json_object_array_add(list, b);
    set(schema, "anyOf", list);
    return schema;
}

static struct json_object *
schema_of_seconds(void)
{
    struct json_object *schema = schema_of_type("number");
    set(schema, "minimum", json_object_new_int(0));
    return schema;
}

#define REFERENCE "\\$\\{" /* of the environment: anything may become of it */

/* One value, without list and false around it. */
static struct json_object *
schema_of_one(const struct option *row)
{
    switch (row->type) {
    case TYPE_BOOL: return schema_of_type("boolean");
    case TYPE_COUNT: return schema_of_number(row);
    case TYPE_WORKERS: return schema_of_either(schema_of_number(row), schema_of_words("auto"));
    case TYPE_PORT:
        return schema_of_either(schema_of_number(row),
                                schema_of_pattern("^[0-9]{1,5}$|" REFERENCE));
    case TYPE_DURATION:
        return schema_of_either(schema_of_seconds(),
                                schema_of_pattern("^[0-9]+(ms|s|m|h)$|" REFERENCE));
    case TYPE_SIZE:
        return schema_of_either(schema_of_number(row),
                                schema_of_pattern("^[0-9]+[km]?$|" REFERENCE));
    case TYPE_PERCENT:
        return schema_of_either(schema_of_number(row), schema_of_pattern("^[0-9]+%$|" REFERENCE));
    case TYPE_WORD: return schema_of_words(row->words);
    case TYPE_RATE: return schema_of_pattern("^[0-9]+/[smh]$|" REFERENCE);
    case TYPE_NAME: return schema_of_pattern("^[A-Za-z0-9._-]+$|" REFERENCE);
    case TYPE_OCTAL: return schema_of_pattern("^[0-7]{1,5}$|" REFERENCE);
    case TYPE_PREFIX:
    case TYPE_REQUEST: return schema_of_pattern("^/|" REFERENCE);
    case TYPE_STATUS:
        return schema_of_either(schema_of_type("integer"),
                                schema_of_pattern("^[1-5][0-9]{2}[-0-9,]*$|" REFERENCE));
    case TYPE_OBJECT: return schema_of_reference(row->object);
    default: return schema_of_type("string");
    }
}

static struct json_object *
schema_of_list(const struct option *row)
{
    struct json_object *schema = schema_of_type("array");
    set(schema, "items", schema_of_one(row));
    if (row->flags & OPT_NONEMPTY) {
        set(schema, "minItems", json_object_new_int(1));
    }
    return row->flags & OPT_ONE ? schema_of_either(schema_of_one(row), schema) : schema;
}

static struct json_object *
schema_of_map(const struct option *row)
{
    struct json_object *schema = schema_of_type("object");
    set(schema, "propertyNames",
        schema_of_pattern(row->flags & OPT_ANY_KEY ? "^[!-~]{1,256}$" : "^[A-Za-z0-9._-]{1,64}$"));
    set(schema, "additionalProperties",
        row->shorthand ? schema_of_either(schema_of_one(row), schema_of_type("string"))
                       : schema_of_one(row));
    set(schema, "minProperties", json_object_new_int(1));
    return schema;
}

static struct json_object *
schema_of_false(void)
{
    struct json_object *schema = json_object_new_object(), *list = json_object_new_array();
    json_object_array_add(list, json_object_new_boolean(false));
    json_object_array_add(list, json_object_new_string("off"));
    set(schema, "enum", list);
    return schema;
}

static struct json_object *
schema_of_row(const struct option *row)
{
    struct json_object *schema;
    if (row->flags & OPT_MAP) {
        schema = schema_of_map(row);
    } else if (row->flags & OPT_LIST) {
        schema = schema_of_list(row);
    } else {
        schema = schema_of_one(row);
    }
    if (row->shorthand && !(row->flags & OPT_MAP)) {
        schema = schema_of_either(schema, schema_of_type("string"));
    }
    if (row->flags & OPT_FALSE) {
        schema = schema_of_either(schema, schema_of_false());
    }
    set_text(schema, "description", row->help);
    if (row->fallback && !row->shown) {
        set(schema, "default", json_tokener_parse(row->fallback));
    }
    return schema;
}

static void
add_row(struct json_object *schema, const struct option *row)
{
    struct json_object *properties, *required;
    json_object_object_get_ex(schema, "properties", &properties);
    set(properties, row->key, schema_of_row(row));
    if (row->flags & OPT_REQUIRED) {
        if (!json_object_object_get_ex(schema, "required", &required)) {
            required = json_object_new_array();
            set(schema, "required", required);
        }
        json_object_array_add(required, json_object_new_string(row->key));
    }
}

static struct json_object *
new_object_schema(void)
{
    struct json_object *schema = schema_of_type("object");
    set(schema, "properties", json_object_new_object());
    set(schema, "additionalProperties", json_object_new_boolean(false));
    return schema;
}

/* Where files are included, what must be there may stand in one of them. */
static void
let_include_do(struct json_object *schema)
{
    struct json_object *required, *there = json_object_new_object();
    struct json_object *elsewhere = json_object_new_object(), *include = json_object_new_array();
    struct json_object *list = json_object_new_array();
    json_object_object_get_ex(schema, "required", &required);
    set(there, "required", json_object_get(required));
    json_object_array_add(include, json_object_new_string("include"));
    set(elsewhere, "required", include);
    json_object_array_add(list, elsewhere);
    json_object_array_add(list, there);
    json_object_object_del(schema, "required");
    set(schema, "anyOf", list);
}

static struct json_object *
schema_of_owner(enum option_owner owner)
{
    struct json_object *schema = new_object_schema();
    for (const struct option *row = option_table; row < table_end(); row++) {
        if (row->owner == owner) {
            add_row(schema, row);
        }
    }
    if (owner == OWN_TOP) {
        let_include_do(schema);
    }
    return schema;
}

/* Its timeouts are the listener's and the upstream's in one object. */
static struct json_object *
schema_of_short_timeouts(void)
{
    struct json_object *schema = new_object_schema();
    for (const struct option *row = option_table; row < table_end(); row++) {
        if (row->owner == OWN_LISTENER_TIMEOUTS || row->owner == OWN_UPSTREAM_TIMEOUTS) {
            add_row(schema, row);
        }
    }
    return schema;
}

static struct json_object *
schema_of_short_form(void)
{
    struct json_object *schema = new_object_schema(), *properties;
    for (const struct option *row = option_table; row < table_end(); row++) {
        struct option copy = *row;
        copy.flags &= ~(unsigned)OPT_REQUIRED;
        if (option_is_short(row)) {
            add_row(schema, &copy);
        }
    }
    json_object_object_get_ex(schema, "properties", &properties);
    set(properties, "timeouts", schema_of_short_timeouts());
    struct json_object *both = json_object_new_array();
    static const char *const spellings[] = {"Backends", "backends"};
    for (int i = 0; i < 2; i++) {
        struct json_object *one = json_object_new_object(), *names = json_object_new_array();
        json_object_array_add(names, json_object_new_string(spellings[i]));
        set(one, "required", names);
        json_object_array_add(both, one);
    }
    set(schema, "oneOf", both);
    return schema;
}

void
conf_print_schema(FILE *out)
{
    struct json_object *schema = json_object_new_object(), *defs = json_object_new_object();
    struct json_object *forms = json_object_new_array();
    set_text(schema, "$schema", "https://json-schema.org/draft/2020-12/schema");
    set_text(schema, "title", "akashd.json");
    set_text(schema, "description", "Configuration of akashd. Comments are allowed in the file.");
    json_object_array_add(forms, schema_of_reference(OWN_SHORT));
    json_object_array_add(forms, schema_of_reference(OWN_TOP));
    set(schema, "oneOf", forms);
    for (int owner = 0; owner < OWN_COUNT; owner++) {
        char name[32];
        set(defs, name_of((enum option_owner)owner, name, sizeof(name)),
            owner == OWN_SHORT ? schema_of_short_form()
                               : schema_of_owner((enum option_owner)owner));
    }
    set(schema, "$defs", defs);
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(schema, JSON_C_TO_STRING_PRETTY |
                                                       JSON_C_TO_STRING_SPACED |
                                                       JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(schema);
}

/* ---- the manual page (mdoc) ---- */

/* Text as roff takes it: no line of it is a request, no character of it an escape. */
static void
put_roff(FILE *out, const char *text)
{
    for (const char *at = text; *at; at++) {
        if (*at == '\\') {
            fputs("\\e", out);
        } else if (*at == '-') {
            fputs("\\-", out);
        } else if (*at == '"') {
            fputs("\\(dq", out);
        } else {
            if ((*at == '.' || *at == '\'') && at == text) {
                fputs("\\&", out);
            }
            putc(*at, out);
        }
    }
}

static void
put_value(FILE *out, const struct option *row)
{
    char expected[256];
    put_roff(out, option_expected(row, expected, sizeof(expected)));
    fputs(".\n", out);
    if (row->shown || row->fallback) {
        fputs("Default: ", out);
        put_roff(out, row->shown ? row->shown : row->fallback);
        fputs(".\n", out);
    } else if (row->flags & OPT_REQUIRED) {
        fputs("Required.\n", out);
    }
}

static void
put_row(FILE *out, const struct option *row)
{
    fprintf(out, ".It Cm %s\n", row->key);
    put_roff(out, row->help);
    fputs("\n.br\nValue: ", out);
    put_value(out, row);
}

static void
put_owner(FILE *out, enum option_owner owner)
{
    fprintf(out, ".Ss %s\n", option_objects[owner].title);
    if (option_objects[owner].help) {
        put_roff(out, option_objects[owner].help);
        putc('\n', out);
    }
    fputs(".Bl -tag -width Ds\n", out);
    for (const struct option *row = option_table; row < table_end(); row++) {
        if (row->owner == owner) {
            put_row(out, row);
        }
    }
    fputs(".El\n", out);
}

/* Keys of other objects that may stand at the top of the short form. */
static void
put_short_keys(FILE *out, enum option_owner owner)
{
    const char *comma = "";
    for (const struct option *row = option_table; row < table_end(); row++) {
        if (row->owner == owner && row->flags & OPT_SHORT) {
            fprintf(out, "%s%s", comma, row->key);
            comma = ", ";
        }
    }
    fputs(".\n", out);
}

static const char manual_head[] =
    ".\\\" Printed by akashd --print-manual from the option table.\n"
    ".Dd November 24, 2026\n"
    ".Dt AKASHD.JSON 5\n"
    ".Os\n"
    ".Sh NAME\n"
    ".Nm akashd.json\n"
    ".Nd configuration of the akashd load balancer\n"
    ".Sh DESCRIPTION\n"
    "One JSON file, and those that it includes, with comments: // to the end of the line, and\n"
    "between /* and */.\n"
    "An unknown key, a wrong type, a value out of range, a name that nothing defines, a duplicate\n"
    "key or name are errors; all are told at once, each with file, line and column.\n"
    ".Pp\n"
    "Durations are \\(dq500ms\\(dq, \\(dq10s\\(dq, \\(dq5m\\(dq, \\(dq1h\\(dq, or a number of "
    "seconds.\n"
    "Sizes are numbers of bytes or \\(dq64k\\(dq, \\(dq1m\\(dq.\n"
    "Addresses are \\(dq127.0.0.1:8081\\(dq, \\(dq[::1]:8081\\(dq, \\(dqname:8081\\(dq,\n"
    "\\(dqunix:/path\\(dq; a listener also takes \\(dq:8080\\(dq, all addresses.\n"
    "Relative paths are relative to the file's own folder.\n"
    "${NAME} in a string is replaced from the environment; $${ is a literal ${.\n"
    ".Pp\n"
    ".Ql akashd -T\n"
    "prints the configuration in the long form with every default.\n";

static const char manual_short[] =
    ".Sh SHORT FORM\n"
    "One listener and one upstream, both named default.\n"
    "It is taken where none of include, listeners, upstreams and routes stands in the file.\n";

static const char manual_tail[] =
    ".Sh EXAMPLES\n"
    "The short form:\n"
    ".Bd -literal -offset indent\n"
    "{\n"
    "  \"listen\": \"1902\",\n"
    "  \"Backends\": [\n"
    "    { \"address\": \"127.0.0.1:8081\", \"weight\": 1 },\n"
    "    { \"address\": \"127.0.0.1:8082\", \"weight\": 2 }\n"
    "  ]\n"
    "}\n"
    ".Ed\n"
    ".Pp\n"
    "The long form:\n"
    ".Bd -literal -offset indent\n"
    "{\n"
    "  \"listeners\": [ { \"name\": \"web\", \"address\": \":80\" } ],\n"
    "  \"routes\": [\n"
    "    { \"path\": \"/api\", \"upstream\": \"api\" },\n"
    "    { \"upstream\": \"site\" }\n"
    "  ],\n"
    "  \"upstreams\": {\n"
    "    \"api\": { \"algorithm\": \"least_conn\",\n"
    "             \"backends\": [ { \"address\": \"10.0.0.1:8080\" } ] },\n"
    "    \"site\": { \"backends\": [ { \"address\": \"10.0.0.2:8080\" } ] }\n"
    "  }\n"
    "}\n"
    ".Ed\n"
    ".Pp\n"
    "A file for each site beside it, which\n"
    ".Ql \\(dqinclude\\(dq: \\(dqconf.d/*.json\\(dq\n"
    "takes in; its certificate lies in conf.d too:\n"
    ".Bd -literal -offset indent\n"
    "{\n"
    "  \"listeners\": [ { \"name\": \"shop\", \"address\": \":443\", \"tls\": {\n"
    "    \"certificates\": [ { \"cert\": \"shop.pem\", \"key\": \"shop.key\" } ] } } ],\n"
    "  \"routes\": [ { \"host\": \"shop.example.com\", \"upstream\": \"shop\" } ],\n"
    "  \"upstreams\": { \"shop\": { \"backends\": [ { \"address\": \"10.0.0.3:8080\" } ] } }\n"
    "}\n"
    ".Ed\n"
    ".Sh SEE ALSO\n"
    ".Xr akashd 8\n";

void
conf_print_manual(FILE *out)
{
    fputs(manual_head, out);
    fputs(manual_short, out);
    put_owner(out, OWN_SHORT);
    fputs(".Pp\nKeys of a listener may stand at the top too: ", out);
    put_short_keys(out, OWN_LISTENER);
    fputs("Keys of an upstream may stand at the top too: ", out);
    put_short_keys(out, OWN_UPSTREAM);
    fputs("So may what stands at the top of the long form, but for its lists.\n.Sh LONG FORM\n",
          out);
    for (int owner = 0; owner < OWN_SHORT; owner++) {
        put_owner(out, (enum option_owner)owner);
    }
    fputs(manual_tail, out);
}
