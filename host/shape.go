package host

import (
	"cmp"
	"slices"

	"github.com/tetratelabs/wazero/api"
)

// Shape is what a module is made of, as its author built it: for people who want to know what they
// install.
type Shape struct {
	Size       int64    `json:"size"`      // bytes of the .wasm
	Functions  int      `json:"functions"` // with code
	Imports    []Symbol `json:"imports"`   // in the module's order
	Exports    []Symbol `json:"exports"`   // functions, by name
	MemoryMin  int64    `json:"memory_min"`
	MemoryMax  int64    `json:"memory_max"` // bytes; 0 if the module declares none
	TableMin   uint64   `json:"table_min"`  // elements of all tables
	TableMax   uint64   `json:"table_max"`  // 0 if a table declares none
	FuelPoints int      `json:"fuel_points"`
	Reusable   bool     `json:"reusable"` // instances can be used for further calls
}

// Symbol is a function that a module imports or exports.
type Symbol struct {
	Module    string `json:"module,omitempty"` // of an import
	Name      string `json:"name"`
	Signature string `json:"signature"` // "(i32, i32) -> (i64)"
}

// Shape tells what the module is made of. Do not change its slices.
func (m *Module) Shape() Shape { return m.shape }

func (c *code) describeShape() Shape {
	s := Shape{Size: int64(len(c.wasm)), Functions: c.info.Functions, FuelPoints: c.info.Charges, TableMin: c.tables.least, Reusable: c.first != nil}
	symbol := func(module, name string, f api.FunctionDefinition) Symbol {
		return Symbol{Module: module, Name: name, Signature: signature(f.ParamTypes(), f.ResultTypes())}
	}
	for _, f := range c.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		s.Imports = append(s.Imports, symbol(module, name, f))
	}
	for name, f := range c.compiled.ExportedFunctions() {
		s.Exports = append(s.Exports, symbol("", name, f))
	}
	slices.SortFunc(s.Exports, func(a, b Symbol) int { return cmp.Compare(a.Name, b.Name) })
	for _, memory := range c.compiled.ExportedMemories() {
		s.MemoryMin = int64(memory.Min()) * wasmPage
		if most, declared := memory.Max(); declared {
			s.MemoryMax = int64(most) * wasmPage
		}
	}
	if !c.tables.unbounded {
		s.TableMax = c.tables.most
	}
	return s
}
