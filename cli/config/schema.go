package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"maps"
)

// SchemaURL is where the schema of the newest version can be had.
const SchemaURL = "https://raw.githubusercontent.com/torpor-run/torpor/main/cli/config/torpor.schema.json"

//go:embed torpor.schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of the file, for editors. It is [MakeSchema] of the form that the
// program has.
func Schema() []byte { return bytes.Clone(schema) }

// MakeSchema makes the JSON Schema of files of a form. What it accepts and the parser refuses is what a schema
// cannot say: what variables hold, services that match the same, regular expressions, ranges of durations
// and sizes given as text, and what is missing where a preset has not given it.
func MakeSchema(form Form) ([]byte, error) {
	on := new(bool)
	embedded := map[string]any{}
	for _, name := range form.Embedded {
		embedded[name] = map[string]any{"$ref": "#/$defs/embedded"}
	}
	top := group{keys: form.settings(false, "", map[string]*string{})}.schema(true)
	properties := top["properties"].(map[string]any)
	properties[keyServices] = map[string]any{
		"description":   "the services, by name: a letter a to z, then letters, digits, _ and -",
		"type":          []string{"object", "null"},
		"propertyNames": map[string]any{"pattern": namePattern},
		"properties":    embedded,
		"additionalProperties": map[string]any{
			"if":   map[string]any{"required": []string{keyPreset}},
			"then": map[string]any{"$ref": "#/$defs/above_preset"},
			"else": map[string]any{"$ref": "#/$defs/service"},
		},
	}
	limits := modules{&Document{form: form}}.schema(true)
	limits["description"] = "limits of modules, by name"
	properties[keyModules] = limits
	out := map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         SchemaURL,
		"title":       "torpor.yaml",
		"description": "The configuration of Torpor. It is made from the tables of package cli/config: do not edit it.",
		"$defs": map[string]any{
			"service":      serviceForm(&Service{}, on).schema(true),
			"above_preset": serviceForm(&Service{}, on).schema(false),
			"embedded":     embeddedForm(&Service{}, on).schema(true),
		},
	}
	maps.Copy(out, top)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(out)
	return b.Bytes(), err
}
