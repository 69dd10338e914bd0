package pickle_test

import (
	"testing"

	"github.com/torpor-run/torpor/host"
)

// FuzzPickle gives save any bytes: it refuses them clearly, or gives records which load to a pickle that
// is saved as the same records.
func FuzzPickle(f *testing.F) {
	for _, file := range fixtureFiles(f) {
		if data := read(f, file); len(data) < 16<<10 {
			f.Add(data)
		}
	}
	for _, seed := range []string{
		"N.", "(lp0\nI1\naL2L\naF1.5\naV\\u00e9\np1\nag1\na.", "(dp0\nS'k'\n(lsS'l'\ng0\ns.", "(I1\nI2\nios\nsystem\n.", "]q\x00(K\x01h\x00e.", "(cm\nC\nK\x01o}X\x01\x00\x00\x00aK\x01sb.",
		"\x80\x02cm\nC\n)\x81q\x00}q\x01U\x01ah\x00sb.", "\x80\x02cm\nf\n]q\x00\x85R0h\x00h\x00\x86.", "\x80\x02\x82\x01\x83\x01\x00\x84\x01\x00\x00\x00\x87.", "\x80\x02K\x01QP7\n\x86.",
		"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8f\x94(K\x01\x8c\x01x\x90.", "\x80\x04\x8c\x01m\x94\x8c\x01C\x93\x94)}\x8c\x01kNs\x92(h\x01\x91\x86.", "\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab\x942\x86.",
		"\x80\x04}\x94(\x8c\x0c000000000000\x94}\x94\x8c\x09us-east-1\x94cm\nC\n)\x81}\x94\x8c\x01a}\x94(K\x01h\x03K\x02Nusbsu.", "K\x01.K\x02.\x80\x02N.", "\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.",
		"\x80\x02]q\x00(h\x00\x85q\x01ah\x010h\x01.", "\x80\x03cm\nC\n)R}b]bNb.", "\x80\x05\x97\x98.",
	} {
		f.Add([]byte(seed))
	}
	m := compile(f, host.Limits{CallFuel: 20_000_000_000}, nil)
	f.Fuzz(func(t *testing.T, native []byte) {
		if len(native) > 1<<20 {
			return
		}
		if _, _, err := m.roundTrip(native); err != nil && unclear(err, len(native)) != "" {
			t.Fatalf("%v: %s", err, unclear(err, len(native)))
		}
		failed := &complaints{t: t}
		mustBeCheap(failed, m, "save", "save", len(native)*4)
	})
}
