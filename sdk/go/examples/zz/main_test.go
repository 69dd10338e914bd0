package zz
import ("testing";"os";"bytes";"context";"fmt";"syscall";"time";"log/slog";"io"
"github.com/torpor-run/torpor/host";"github.com/torpor-run/torpor/host/abi";"github.com/torpor-run/torpor/host/abi/record")
type discard struct{ n int}
func (d *discard) WriteBatch(b *record.Batch) error { d.n+=len(b.Data);return nil }
type sink struct{ bytes.Buffer }
func (s *sink) WriteBatch(b *record.Batch) error { s.Write(b.Data); return nil }
type obs struct{m int64}
func (*obs) ModuleCompiled(string, time.Duration, error)          {}
func (c *obs) ModuleCalled(_, _ string, cost host.CallCost)       { c.m = cost.Memory }
func cpu() time.Duration { var r syscall.Rusage; syscall.Getrusage(syscall.RUSAGE_SELF,&r); return time.Duration(r.Utime.Nano()+r.Stime.Nano()) }
func TestCPU(t *testing.T) {
 ctx:=context.Background()
 wasm,_:=os.ReadFile(os.Getenv("WASM")); state,_:=os.ReadFile(os.Getenv("STATE"))
 o:=&obs{}
 c0:=cpu()
 h,err:=host.New(ctx,host.Config{Logger:slog.New(slog.DiscardHandler),Observer:o}); if err!=nil{t.Fatal(err)}
 m,err:=h.Compile(ctx,"x",wasm); if err!=nil{t.Fatal(err)}
 fmt.Println("compile cpu",cpu()-c0)
 var rec sink
 for i:=0;i<6;i++{
  rec.Reset()
  c0=cpu(); if err:=m.Save(ctx,abi.Call{Schema:1},bytes.NewReader(state),&rec);err!=nil{t.Fatal(err)}
  d:=cpu()-c0; ms:=o.m
  c0=cpu(); if err:=m.Load(ctx,abi.Call{Schema:1},record.NewReader(bytes.NewReader(rec.Bytes()),0),io.Discard);err!=nil{t.Fatal(err)}
  e:=cpu()-c0
  fmt.Printf("save %.0f MB/s %d MiB  load %.0f MB/s %d MiB\n", float64(len(state))/1e6/d.Seconds(), ms>>20, float64(len(state))/1e6/e.Seconds(), o.m>>20)
 }
 c0=cpu(); var s record.Scanner; refs,_:=s.Scan(rec.Bytes(),nil); fmt.Println("native scan", float64(rec.Len())/1e6/(cpu()-c0).Seconds(), len(refs), "rec bytes",rec.Len(),len(state))
}
