package config

import (
	"slices"
	"strings"
)

// placeholders are the words in braces that Expand replaces.
func placeholders() []string { return []string{"port", "address", "folder", "data"} }

// Expand replaces {port}, {address}, {folder} and {data} in text by what values has under these names. What it
// does not have, and other words in braces, stay as they are. What was put in is not looked at again.
func Expand(text string, values map[string]string) string {
	var pairs []string
	for _, name := range placeholders() {
		if v, ok := values[name]; ok {
			pairs = append(pairs, "{"+name+"}", v)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// ExpandAll is [Expand] for each of texts, in a slice of its own.
func ExpandAll(texts []string, values map[string]string) []string {
	out := slices.Clone(texts)
	for i, t := range out {
		out[i] = Expand(t, values)
	}
	return out
}

// InData gives the service with {data} replaced by folder everywhere, which should be absolute. s keeps what
// it has.
func (s Service) InData(folder string) Service {
	return s.expanded(map[string]string{"data": folder})
}

// expanded gives a service of its own with values filled in wherever placeholders may stand.
func (s Service) expanded(values map[string]string) Service {
	if s.Run != nil {
		run := *s.Run
		run.Command, run.Env, run.Folder = ExpandAll(run.Command, values), ExpandAll(run.Env, values), Expand(run.Folder, values)
		s.Run = &run
	}
	s.Changed = ExpandAll(s.Changed, values)
	s.Parts = slices.Clone(s.Parts)
	for i := range s.Parts {
		s.Parts[i].Source = s.Parts[i].Source.Filled(values)
	}
	return s
}

// Filled gives the source with values filled in, as [Expand] does, wherever placeholders may stand. s keeps what it
// has.
func (s Source) Filled(values map[string]string) Source {
	if s.File != nil {
		c := *s.File
		c.Path, c.Spool.Folder = Expand(c.Path, values), Expand(c.Spool.Folder, values)
		s.File = &c
	}
	if s.Files != nil {
		c := *s.Files
		c.Root, c.Spool = Expand(c.Root, values), Expand(c.Spool, values)
		s.Files = &c
	}
	if s.SQLite != nil {
		c := *s.SQLite
		c.Path, c.Spool = Expand(c.Path, values), Expand(c.Spool, values)
		s.SQLite = &c
	}
	if s.HTTP != nil {
		c := *s.HTTP
		c.URL, c.Spool.Folder = Expand(c.URL, values), Expand(c.Spool.Folder, values)
		c.Header = c.Header.Clone()
		for _, all := range c.Header {
			copy(all, ExpandAll(all, values))
		}
		s.HTTP = &c
	}
	if s.Exec != nil {
		c := *s.Exec
		c.Dump, c.Restore, c.Reset, c.Env = ExpandAll(c.Dump, values), ExpandAll(c.Restore, values), ExpandAll(c.Reset, values), ExpandAll(c.Env, values)
		c.Folder, c.Spool.Folder = Expand(c.Folder, values), Expand(c.Spool.Folder, values)
		s.Exec = &c
	}
	if s.Push != nil {
		c := *s.Push
		c.Spool.Folder = Expand(c.Spool.Folder, values)
		s.Push = &c
	}
	return s
}
