package zz
import ("testing";"time";"fmt";"os";"context";"log/slog";"bytes";"io"
"github.com/torpor-run/torpor/host";"github.com/torpor-run/torpor/host/abi";"github.com/torpor-run/torpor/host/abi/record"
)
func TestBest(t *testing.T) {
 ctx:=context.Background()
 state,_:=os.ReadFile(os.Getenv("STATE"))
 os.RemoveAll("/tmp/gosdk/cache2")
 best:=func(n int, f func()) time.Duration { b:=time.Hour; for range n { c:=cpu(); f(); b=min(b,cpu()-c)}; return b }
 var recs []byte
 for _,p:=range []string{os.Getenv("WASM"),"/work/main/modules/records.wasm"} {
 wasm,_:=os.ReadFile(p)
 fmt.Println("best compile", best(3,func(){ h,_:=host.New(ctx,host.Config{Logger:slog.New(slog.DiscardHandler)}); if _,err:=h.Compile(ctx,"x",wasm); err!=nil{t.Fatal(err)}; h.Close(ctx)}))
 fmt.Println("best cached", best(5,func(){ h,_:=host.New(ctx,host.Config{Logger:slog.New(slog.DiscardHandler),CacheDir:"/tmp/gosdk/cache2"}); if _,err:=h.Compile(ctx,"x",wasm); err!=nil{t.Fatal(err)}; h.Close(ctx)}))
 h,_:=host.New(ctx,host.Config{Logger:slog.New(slog.DiscardHandler),CacheDir:"/tmp/gosdk/cache2"})
 m,err:=h.Compile(ctx,"x",wasm); if err!=nil{t.Fatal(err)}
 fmt.Println("best empty load", best(30,func(){ if err:=m.Load(ctx,abi.Call{Schema:1},record.NewReader(bytes.NewReader(nil),0),io.Discard);err!=nil{t.Fatal(err)} }))
 var rec sink
 in:=state
 if recs!=nil { in=recs }
 bs,bl:=time.Hour,time.Hour
 for i:=0;i<30;i++{
  rec.Reset()
  c0:=cpu(); if err:=m.Save(ctx,abi.Call{Schema:1},bytes.NewReader(in),&rec);err!=nil{t.Fatal(err)}
  bs=min(bs,cpu()-c0)
  c0=cpu(); if err:=m.Load(ctx,abi.Call{Schema:1},record.NewReader(bytes.NewReader(rec.Bytes()),0),io.Discard);err!=nil{t.Fatal(err)}
  bl=min(bl,cpu()-c0)
 }
 recs=append([]byte(nil),rec.Bytes()...)
 fmt.Printf("%s best cpu: save %.0f MB/s load %.0f MB/s\n", p,float64(len(in))/1e6/bs.Seconds(), float64(len(in))/1e6/bl.Seconds())
 }
}
