package placement
import ("testing";"fmt";"math/rand/v2";"os";"strconv")
func TestZZ(t *testing.T){
 const R=3000
 base,_:=strconv.ParseUint(os.Getenv("BASE"),10,64)
 h,_:=strconv.ParseFloat(os.Getenv("H"),64); headroom=h
 for _,n:=range []int{3,5,7}{ for mode:=range 4{ 
   bad:=0; var wo [2]float64; first:=0
   for k:=range uint64(R){ s:=k+base; all:=uploads(s,1500); if k%2==1 {all=renamed(all,rand.New(rand.NewPCG(91,s)))}
    sm:=sim{nodes:n,replicas:2,leaders:3}; switch mode{case 0: sm.leaders=1; case 2: sm.late=8; case 3: sm.late=8;sm.dice=rand.New(rand.NewPCG(92,s))}
    o,_:=sm.run(fmt.Sprintf("fresh%d",s),all); i,b:=spread(o.table,func(c Candidate)point{return c.Owned.point()}); if max(i,b)>.15{bad++}; wo[0]=max(wo[0],i);wo[1]=max(wo[1],b);first+=o.first}
   fmt.Printf("h=%.1f n=%d mode=%d bad %d of %d worst %.3f first %.0f%%\n",h,n,mode,bad,R,wo,float64(first)/(15*R))
 }}}
